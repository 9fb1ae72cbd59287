package deadline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"snowlink/internal/deadline"
)

// Each operation has its time, or up to 50 ms less, whenever it begins.
func TestSharedContextsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const after, early = time.Second, 50 * time.Millisecond
		s := deadline.NewShared(after)
		for range 100 {
			began := time.Now()
			ctx := s.From(began)
			ends, ok := ctx.Deadline()
			if left := ends.Sub(began); !ok || left > after || left < after-early {
				t.Fatalf("an operation has %s, want %s, or up to %s less", left, after, early)
			}
			go func() {
				<-ctx.Done()
				if took := time.Since(began); took > after || took < after-early || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
					t.Errorf("it ended after %s: %v", took, ctx.Err())
				}
			}()
			time.Sleep(7 * time.Millisecond)
		}
		time.Sleep(2 * after)
		if err := s.From(time.Now()).Err(); err != nil {
			t.Errorf("after a rest: %v", err)
		}
		time.Sleep(2 * after) // its timer ends
	})
}

func TestOperationsOfAMomentShareAContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deadline.NewShared(time.Second)
		first := s.From(time.Now())
		time.Sleep(50 * time.Millisecond)
		if s.From(time.Now()) != first {
			t.Error("50 ms later it is another one")
		}
		time.Sleep(time.Millisecond)
		second := s.From(time.Now())
		if second == first {
			t.Error("51 ms later it is the same")
		}
		if s.From(time.Now()) != second {
			t.Error("the new one is not shared")
		}
		time.Sleep(2 * time.Second)
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !deadline.Sleep(t.Context(), time.Second) || time.Since(began) != time.Second {
			t.Errorf("it slept %s", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		if deadline.Sleep(ctx, time.Hour) || time.Since(began) != time.Minute {
			t.Errorf("with a minute left it slept %s", time.Since(began))
		}
		if deadline.Sleep(ctx, time.Hour) || time.Since(began) != time.Minute {
			t.Error("it slept with no time left")
		}
	})
}
