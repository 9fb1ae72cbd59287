package httpapi

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/clicks"
	"snowlink/internal/link"
	"snowlink/internal/stats"
)

const (
	contentEvents = "text/event-stream"

	// liveTime ends a live view, so that a key that is taken away does not watch for ever. Clients
	// come back by themselves: it is how server-sent events work.
	liveTime = 15 * time.Minute
	// liveEvery is the time between two events, and quietEvery the longest without a byte. That shows
	// which clients have gone, and keeps proxies from giving up.
	liveEvery  = time.Second
	quietEvery = 2 * time.Second

	// liveLinks is how many links an event names, and liveKept how many are told apart until then.
	liveLinks = 100
	liveKept  = 1000
	// liveMemory is more than a live view takes, in bytes.
	liveMemory = 256 << 10
)

// watchClicks answers GET /clicks/live with what is being clicked, as server-sent events.
func (a *API) watchClicks(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	q, err := a.parseClicks(ctx, []string{"owner", "tag", "code"})
	if err == nil && q.Code != "" {
		q.Owner = "" // a link has one, whatever it is
		_, err = a.readOwned(within, key, q.Code)
	} else if err == nil {
		q.Owner, err = ownerToList(key, q.Owner)
	}
	var release func()
	if err == nil {
		release, err = a.slots.take(routeLive, key.Name, liveMemory)
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	defer func() { releaseAfter(ctx, release) }()
	ctx.Response.Header.Set("X-Accel-Buffering", "no") // Nginx passes each event on at once
	a.stream(ctx, contentEvents, liveTime, func(w io.Writer) error { return a.sendLive(w, q.Scope) })
}

// sendLive sends events until the client goes, its time is over or the backend drains.
func (a *API) sendLive(w io.Writer, scope stats.Scope) error {
	v := a.live.join(scope)
	defer a.live.leave(v)
	end, tick := time.NewTimer(liveTime), time.NewTicker(liveEvery)
	defer end.Stop()
	defer tick.Stop()
	event, sent := []byte("retry: 1000\n\n"), time.Time{}
	for {
		if len(event) == 0 && time.Since(sent) >= quietEvery {
			event = []byte(":\n\n") // a comment
		}
		if len(event) > 0 {
			if _, err := w.Write(event); err != nil {
				return err
			}
			sent = time.Now()
		}
		select {
		case <-a.drained:
			return nil
		case <-end.C:
			return nil
		case now := <-tick.C:
			event = v.event(now)
		}
	}
}

// live hears the feed while there are viewers, once for all of them.
type live struct {
	ctx  context.Context
	feed clicks.Feed

	mu      sync.Mutex
	viewers map[*viewer]struct{}
	stop    context.CancelFunc // of the subscription
}

func newLive(ctx context.Context, feed clicks.Feed) *live {
	return &live{ctx: ctx, feed: feed, viewers: make(map[*viewer]struct{})}
}

// A viewer is somebody who watches, and what there is to tell since the last event.
type viewer struct {
	scope stats.Scope

	mu           sync.Mutex
	people, bots int64
	links        map[string]int64 // clicks by code, bots with them
}

func (l *live) join(scope stats.Scope) *viewer {
	v := &viewer{scope: scope, links: make(map[string]int64)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.viewers[v] = struct{}{}; len(l.viewers) == 1 {
		ctx, stop := context.WithCancel(l.ctx)
		l.stop = stop
		go l.feed.Subscribe(ctx, func(c clicks.Count) {
			if ctx.Err() == nil { // or another subscription tells of it
				l.hear(&c)
			}
		})
	}
	return v
}

func (l *live) leave(v *viewer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.viewers, v); len(l.viewers) == 0 {
		l.stop()
	}
}

func (l *live) hear(c *clicks.Count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for v := range l.viewers {
		v.hear(c)
	}
}

func (v *viewer) hear(c *clicks.Count) {
	s := v.scope
	if s.Code != "" && s.Code != c.Code || s.Owner != "" && s.Owner != cmp.Or(c.Owner, link.DefaultOwner) ||
		s.Tag != "" && !slices.Contains(c.Tags, s.Tag) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.people += c.Clicks
	v.bots += c.Bots
	if _, ok := v.links[c.Code]; ok || len(v.links) < liveKept {
		v.links[c.Code] += c.Clicks + c.Bots
	}
}

// event returns what there is to tell, or nothing.
func (v *viewer) event(now time.Time) []byte {
	v.mu.Lock()
	people, bots, links := v.people, v.bots, v.links
	if people+bots > 0 {
		v.people, v.bots, v.links = 0, 0, make(map[string]int64)
	}
	v.mu.Unlock()
	if people+bots == 0 {
		return nil
	}
	b := append([]byte("data: "), `{"at":`...)
	b = appendTime(b, now)
	b = append(b, `,"clicks":`...)
	b = strconv.AppendInt(b, people, 10)
	b = append(b, `,"bots":`...)
	b = strconv.AppendInt(b, bots, 10)
	b = append(b, `,"links":[`...)
	codes := slices.SortedFunc(maps.Keys(links), func(x, y string) int {
		return cmp.Or(cmp.Compare(links[y], links[x]), cmp.Compare(x, y))
	})
	for i, code := range codes[:min(len(codes), liveLinks)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"code":`...)
		b = appendString(b, code)
		b = append(b, `,"clicks":`...)
		b = strconv.AppendInt(b, links[code], 10)
		b = append(b, '}')
	}
	return append(b, "]}\n\n"...)
}
