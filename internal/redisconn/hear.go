package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/deadline"
)

const (
	// hearSilence is how long a subscription may be silent before Redis is asked for a sign of life.
	// After as long again the subscription counts as broken.
	hearSilence = 500 * time.Millisecond
	// hearRetryEvery is the time between two tries to subscribe again.
	hearRetryEvery = 250 * time.Millisecond
)

// Hear calls heard with everything that is published on the channel, until ctx ends. It calls missed
// when something may have been lost: whenever the subscription begins, and whenever it breaks. The
// calls come one after another. That there is no subscription is part of the outage.
func (c *Conn) Hear(ctx context.Context, channel string, outage *Outage, heard func(payload string), missed func()) {
	for ctx.Err() == nil {
		sub := c.Client.Subscribe(ctx, channel)
		stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // a read does not end by itself
		began := false
		err := receive(ctx, sub, func(m any) {
			switch m := m.(type) {
			case *redis.Subscription:
				began = true
				outage.Ended()
				missed()
			case *redis.Message:
				heard(m.Payload)
			}
		})
		stop()
		_ = sub.Close() // it is broken, or no longer wanted
		if ctx.Err() != nil {
			return
		}
		outage.Observed(err)
		if began {
			missed()
		}
		deadline.Sleep(ctx, hearRetryEvery)
	}
}

// receive hands what the subscription brings to handle, until it breaks.
func receive(ctx context.Context, sub *redis.PubSub, handle func(any)) error {
	for asked := false; ; {
		m, err := sub.ReceiveTimeout(ctx, hearSilence)
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
