package redisconn_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisconn"
)

// open makes connections to a Redis that nobody asks.
func open(t *testing.T, log *slog.Logger) *redisconn.Conn {
	t.Helper()
	conn, err := redisconn.Open("redis://127.0.0.1:1", log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// An outage logs when it starts, every few seconds while it lasts, and when it is over.
func TestOutageLogsItsStartWhileItLastsAndItsEnd(t *testing.T) {
	var log fleettest.Output
	seen := 0 // bytes of it
	conn := open(t, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	synctest.Test(t, func(t *testing.T) {
		outage := conn.Outage("redis")
		want := func(when string, lines ...string) {
			t.Helper()
			synctest.Wait()
			said := log.String()
			if got := slices.Collect(strings.Lines(said[seen:])); !slices.Equal(got, lines) {
				t.Errorf("%s: got %q, want %q", when, got, lines)
			}
			seen = len(said)
		}
		failed := errors.New("refused")

		outage.Ended()
		want("a success")
		outage.Observed(failed)
		want("the first failure", "msg=unavailable of=redis err=refused\n")
		for range 4 { // errors 2 to 5
			time.Sleep(time.Second)
			outage.Observed(failed)
		}
		want("four seconds of failures")
		time.Sleep(time.Second)
		outage.Observed(failed)
		want("the fifth second", "msg=\"still unavailable\" of=redis err=refused for=5s errors=6\n")

		outage.Ended()
		time.Sleep(4 * time.Second)
		outage.Observed(failed)
		outage.Ended()
		time.Sleep(4999 * time.Millisecond)
		want("successes, a failure, and successes for less than five seconds")
		time.Sleep(time.Millisecond)
		want("successes for five seconds", "msg=back of=redis after=9s errors=7\n")
		outage.Ended()
		time.Sleep(time.Minute)
		want("later successes")
		outage.Observed(failed)
		want("another outage", "msg=unavailable of=redis err=refused\n")
	})
}

// An operation has the deadline of its context, and one of its own only if that has none.
func TestLimit(t *testing.T) {
	conn := open(t, slog.New(slog.DiscardHandler))
	left := func(ctx context.Context) time.Duration {
		ends, ok := ctx.Deadline()
		if !ok {
			t.Fatal("it has no deadline")
		}
		return time.Until(ends)
	}
	t.Run("a deadline is the only bound", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		limited, end := conn.Limit(ctx)
		end() // which is the caller's to do
		if limited != ctx || ctx.Err() != nil {
			t.Errorf("it is another context, or ended: %v", ctx.Err())
		}
	})
	t.Run("what can be cancelled has the time of an operation", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		limited, end := conn.Limit(ctx)
		defer end()
		if got := left(limited); got > redisconn.OperationTime {
			t.Errorf("it has %s", got)
		}
		cancel()
		<-limited.Done()
		if !errors.Is(limited.Err(), context.Canceled) {
			t.Errorf("it ended by %v", limited.Err())
		}
	})
	t.Run("others share one", func(t *testing.T) {
		one, end := conn.Limit(context.Background())
		end()
		other, _ := conn.Limit(context.WithoutCancel(t.Context()))
		if got := left(one); got > redisconn.OperationTime || one.Err() != nil {
			t.Errorf("it has %s, %v", got, one.Err())
		}
		if got := left(other); got > redisconn.OperationTime || other.Err() != nil {
			t.Errorf("the other has %s, %v", got, other.Err())
		}
	})
}

// What the caller gave up says nothing about Redis.
func TestWhoGivesUpIsNoOutage(t *testing.T) {
	var log fleettest.Output
	conn := open(t, slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := conn.Operation("asked").Unavailable(conn.Reads, conn.Client.Get(ctx, "a").Err())
	if !errors.Is(err, link.ErrUnavailable) || log.String() != "" {
		t.Errorf("the error is %v, and the log has %q", err, &log)
	}
}
