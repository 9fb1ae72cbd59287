package kafkatest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/kafka/kafkatest"
)

// TestMain starts a broker and waits to be killed, if the test that kills it asks for that.
func TestMain(m *testing.M) {
	if os.Getenv("KAFKATEST_WAIT") != "" {
		b, err := kafkatest.Run()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(b.Dir)
		select {}
	}
	os.Exit(m.Run())
}

// Whoever started a broker is killed: nothing is left of the broker.
func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	kafkatest.Start(t).Stop() // skips where Kafka is not installed
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "KAFKATEST_WAIT=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dir = strings.TrimSpace(dir)
	pid, err := os.ReadFile(dir + "/pid")
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	fleettest.Eventually(t, 10*time.Second, "the broker and its folder are gone", func() bool {
		_, folder := os.Stat(dir)
		_, broker := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
		return os.IsNotExist(folder) && os.IsNotExist(broker)
	})
}

// broker starts the broker of deploy/compose/kafka.yml, at another address.
func broker(t *testing.T) *kafkatest.Broker {
	t.Helper()
	file, err := os.ReadFile("../../../deploy/compose/kafka.properties")
	if err != nil {
		t.Fatal(err)
	}
	b, err := kafkatest.RunWith(func(addr string, controller int, data string) string {
		return strings.NewReplacer("://:9092", "://"+addr, "://kafka:9092", "://"+addr,
			":9093", fmt.Sprint(":", controller), "/var/lib/kafka/data", data).Replace(string(file))
	})
	fleettest.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
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
