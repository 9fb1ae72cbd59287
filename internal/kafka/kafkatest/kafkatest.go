// Package kafkatest gives tests a real Kafka: a broker of their own, started with java from what
// `make tools` fetches from Maven Central.
package kafkatest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// jars are the files of Kafka with their checksums, as test/kafka reads them.
//
//go:embed jars.sha256
var jars string

// version is that of Kafka.
var version = regexp.MustCompile(`/kafka_[0-9.]+-([0-9.]+)\.jar`).FindStringSubmatch(jars)[1]

// Broker is a running Kafka in a temporary folder: one broker, which is its own controller. Others
// are not to be told of it: it asks nobody for a password.
type Broker struct {
	// Its folder has the log of the program in log, and the data in data.
	*fleettest.Kept
	// Addr is its host:port.
	Addr string
}

var shared fleettest.Shared[*Broker]

// Main runs a package's tests and stops the broker that they share. A package whose tests call
// [Shared] calls it from its TestMain.
func Main(m *testing.M) int { return shared.Main(m) }

// Shared returns the broker that the tests of a package share. If java or Kafka is not installed, the
// test is skipped with the program's name, or fails if CI=true. A test that stops or freezes it has it
// run again before it ends.
func Shared(t testing.TB) *Broker {
	t.Helper()
	return shared.Of(t, Run)
}

// Start starts a broker for one test. Otherwise it is as [Shared].
func Start(t testing.TB) *Broker {
	t.Helper()
	return fleettest.Own(t, Run)
}

// Run starts a broker. The error is a [*fleet.MissingError] if java or Kafka is not installed.
func Run() (*Broker, error) {
	return RunWith(func(addr string, controller int, data string) string {
		return fmt.Sprintf(settings, addr, controller, data)
	})
}

// RunWith is Run with the properties of a broker that listens on addr, and as a controller on another
// port, and keeps its data in a folder.
func RunWith(properties func(addr string, controller int, data string) string) (*Broker, error) {
	java, err := fleet.LookPath("java")
	if err != nil {
		return nil, err
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	folder := filepath.Join(cache, "snowlink", "kafka-"+version)
	if complete, err := os.ReadFile(filepath.Join(folder, "complete")); err != nil || string(complete) != jars {
		return nil, &fleet.MissingError{Program: "Kafka " + version}
	}
	dir, err := os.MkdirTemp(memory(), "snowlink-kafka-")
	if err != nil {
		return nil, err
	}
	b, ready := &Broker{}, false
	defer func() {
		if !ready {
			b.Stop()
			_ = os.RemoveAll(dir) // also what was there before the keeper
		}
	}()
	ports, err := fleettest.FreePorts(2)
	if err != nil {
		return nil, err
	}
	b.Addr = "127.0.0.1:" + strconv.Itoa(ports[0])
	file := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(file, []byte(properties(b.Addr, ports[1], filepath.Join(dir, "data"))), 0o600); err != nil {
		return nil, err
	}
	// A small heap, and no compiler that only pays off after minutes.
	command := func(args ...string) []string {
		return append([]string{java, "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(folder, "*")}, args...)
	}
	format := command("kafka.tools.StorageTool", "format", "--cluster-id", "c25vd2xpbmstdGVzdHMtLQ", "--config", file)
	if out, err := exec.Command(format[0], format[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format the data of Kafka: %w\n%s", err, out)
	}

	if b.Kept, err = fleettest.Keep(dir, syscall.SIGKILL, nil, command("kafka.Kafka", file)...); err != nil {
		return nil, err
	}
	if err := b.wait(); err != nil {
		return nil, err
	}
	ready = true
	return b, nil
}

// settings of the broker: its address, the port of the controller, and the folder are filled in. One
// that was killed may not come back before its session is over.
const settings = `process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://%[1]s,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:%[2]d
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.index.size.max.bytes=65536
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
controlled.shutdown.enable=false
`

// wait waits until the broker answers.
func (b *Broker) wait() error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer client.Close()
	for until := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := client.Ping(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("the broker is not ready: %w\n%s", err, b.Log())
		}
	}
}

// Stop ends the broker at once, as a crash would, and removes its folder. A second Stop does nothing.
func (b *Broker) Stop() {
	if b != nil {
		b.Kept.Stop()
	}
}

// Kill ends the broker at once. [Broker.Restart] starts it again.
func (b *Broker) Kill(t testing.TB) { t.Helper(); b.signal(t, syscall.SIGKILL) }

// Pause freezes the broker, and returns when all of its threads stand still.
func (b *Broker) Pause(t testing.TB) {
	t.Helper()
	b.signal(t, syscall.SIGSTOP)
	fleettest.Eventually(t, 10*time.Second, "the broker stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", b.pid(t)))
		if err != nil || len(threads) == 0 {
			t.Fatalf("the broker does not run: %v", err)
		}
		return !slices.ContainsFunc(threads, func(file string) bool {
			stat, err := os.ReadFile(file)
			_, rest, _ := bytes.Cut(stat, []byte(") ")) // behind the name
			return err == nil && !bytes.HasPrefix(rest, []byte("T"))
		})
	})
}

// Resume lets a broker that was paused go on.
func (b *Broker) Resume(t testing.TB) { t.Helper(); b.signal(t, syscall.SIGCONT) }

// Restart kills the broker if it runs, starts it with the same data and address, and waits until it
// answers.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	_ = syscall.Kill(b.pid(t), syscall.SIGKILL) // it may be dead
	if err := b.StartAgain(); err != nil {
		t.Fatal(err)
	}
	if err := b.wait(); err != nil {
		t.Fatal(err)
	}
}

func (b *Broker) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(b.pid(t), sig); err != nil {
		t.Fatal(err)
	}
}

func (b *Broker) pid(t testing.TB) int {
	t.Helper()
	pid, err := b.PID()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// memory is a folder in memory, with some room, or "". A broker that was killed and starts again writes
// each of its files to disk first, and that takes long.
func memory() string {
	const folder, room = "/dev/shm", 1 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return ""
	}
	return folder
}
