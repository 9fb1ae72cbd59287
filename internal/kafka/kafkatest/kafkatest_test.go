package kafkatest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/kafka/kafkatest"
)

func TestMain(m *testing.M) {
	fleettest.WaitToBeKilled(func() (dir string, err error) {
		b, err := kafkatest.Run()
		if err != nil {
			return "", err
		}
		return b.Dir, nil
	})
	os.Exit(m.Run())
}

// Whoever started a broker is killed: nothing is left of the broker.
func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	kafkatest.Start(t).Stop() // skips where Kafka is not installed
	fleettest.NothingIsLeft(t)
}

// broker starts the broker of deploy/compose/kafka.yml, at another address.
func broker(t *testing.T) *kafkatest.Broker {
	t.Helper()
	file, err := os.ReadFile("../../../deploy/compose/kafka.properties")
	if err != nil {
		t.Fatal(err)
	}
	return fleettest.Own(t, func() (*kafkatest.Broker, error) {
		return kafkatest.RunWith(func(addr string, controller int, data string) string {
			return strings.NewReplacer("://:9092", "://"+addr, "://kafka:9092", "://"+addr,
				":9093", fmt.Sprint(":", controller), "/var/lib/kafka/data", data).Replace(string(file))
		})
	})
}

func TestComposesBroker(t *testing.T) {
	b := broker(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 2, -1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t"}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := client.PollFetches(ctx); got.NumRecords() != 1 {
		t.Errorf("a group receives %d records: %v", got.NumRecords(), got.Errors())
	}
}
