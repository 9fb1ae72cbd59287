package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/deadline"
)

// ChangesChannel is where a code is published when its link changes, comes or goes.
const ChangesChannel = "links:changed"

const (
	// changesSilence is how long the subscription may be silent before Redis is asked for a sign of
	// life. After as long again the subscription counts as broken.
	changesSilence = 500 * time.Millisecond
	// changesRetryEvery is the time between two tries to subscribe again.
	changesRetryEvery = 250 * time.Millisecond
)

// Changes calls changed with every code that is announced, until ctx ends. It calls missed when
// announcements may have been lost: whenever the subscription begins, and whenever it breaks. The
// calls come one after another.
func (s *Store) Changes(ctx context.Context, changed func(code string), missed func()) {
	for ctx.Err() == nil {
		sub := s.conn.Client.Subscribe(ctx, ChangesChannel)
		stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // a read does not end by itself
		began := false
		err := receive(ctx, sub, func(m any) {
			switch m := m.(type) {
			case *redis.Subscription:
				began = true
				s.unheard.Ended()
				missed()
			case *redis.Message:
				changed(m.Payload)
			}
		})
		stop()
		_ = sub.Close() // it is broken, or no longer wanted
		if ctx.Err() != nil {
			return
		}
		s.unheard.Observed(err)
		if began {
			missed()
		}
		deadline.Sleep(ctx, changesRetryEvery)
	}
}

// receive hands what the subscription brings to handle, until it breaks.
func receive(ctx context.Context, sub *redis.PubSub, handle func(any)) error {
	for asked := false; ; {
		m, err := sub.ReceiveTimeout(ctx, changesSilence)
		var timeout net.Error
		switch {
		case err == nil:
			// A time-out in the middle of a message loses the part that came. The rest of it then
			// reads as a pong.
			if pong, ok := m.(*redis.Pong); ok && pong.Payload != "" && pong.Payload != "PONG" {
				return fmt.Errorf("out of step: %q for a pong", pong.Payload)
			}
			asked = false
			handle(m)
		case errors.As(err, &timeout) && timeout.Timeout() && !asked && ctx.Err() == nil:
			asked = true
			if err := sub.Ping(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}
