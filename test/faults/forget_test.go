package faults_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

// Experiment 13. Links are made at the same pace twice: while Redis has room for all, and while it
// evicts as many as come.
func TestMoreLinksThanRedisHasRoomFor(t *testing.T) {
	const times, length = 20, 1900
	room, perSecond := pick(1<<20, 5<<20), pick(750, 1500) // bytes, of which a link takes 2 KB; what is on its way to the archive has to fit
	x := start(t, 13, fmt.Sprintf("%d times more links than Redis has room for, three shards", times), fleet.Options{Archive: 3,
		Env: []string{"JOURNAL_MAX=1000"}}) // lists have a room of their own, which is not for links
	a := x.archive()
	db := x.redis()
	x.warm()
	base := info(t, db, "memory", "used_memory")
	all := 0
	fill := func(enough func() bool) measured {
		t.Helper()
		from := time.Now()
		for made := 0; !enough(); {
			some, failed := x.bulk(perSecond/50, length)
			if made, all = made+len(some), all+len(some); len(failed) > 0 {
				t.Fatalf("links were refused: %v", failed)
			}
			if ahead := time.Duration(made)*time.Second/time.Duration(perSecond) - time.Since(from); ahead > 0 {
				x.wait(ahead)
			}
		}
		return measured{from: from, to: time.Now()}
	}
	before := fill(func() bool { return all*2000 >= room*times/2 })
	if err := db.ConfigSet(t.Context(), "maxmemory", fmt.Sprint(base+room)).Err(); err != nil {
		t.Fatal(err)
	}
	during := fill(func() bool { return all >= times*x.links() })
	a.verified()
	held, evicted := x.links(), info(t, db, "stats", "evicted_keys")
	o := a.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.noneFailed(t, create)
	calm, busy := x.load.between(before.from, before.to).of(hotGET), x.load.between(during.from, during.to).of(hotGET)
	x.fault += fmt.Sprintf(": it held %d of %d links and evicted %d; p99 of hot GETs %.1f ms, before %.1f ms", held, o.acknowledged, evicted,
		1000*busy.percentile(0.99).Seconds(), 1000*calm.percentile(0.99).Seconds())
	t.Log(x.fault)
	if held*times > o.acknowledged || evicted == 0 {
		t.Errorf("Redis held %d of %d links and evicted %d: this tested less", held, o.acknowledged, evicted)
	}
	if was, is := calm.percentile(0.99), busy.percentile(0.99); *long && is > max(2*was, 50*time.Millisecond) {
		t.Errorf("p99 of hot links is %s while Redis evicts, and was %s", is, was)
	}
}

// Experiment 16. What is not archived when Redis dies is the most that may be missing until it is
// back.
func TestRedisAwayBeforeAnArchive(t *testing.T) {
	away := pick(3*time.Second, 60*time.Second)
	x := start(t, 16, fmt.Sprintf("kill -9 Redis and leave it away for %s", away), fleet.Options{Archive: 3,
		RedisConfig: []string{"appendfsync always"}}) // what the AOF loses is experiment 4
	a := x.archive()
	x.warm()
	cold := a.cold(pick(300, 3000))
	x.wait(pick(time.Second, 10*time.Second))

	x.fleet.Redis.Kill()
	has := a.archivedOf(x.ledger.last(everything))
	p := x.probe(16, 100, each(cold))
	x.wait(away)
	coldGETs := p.end()
	known := x.ledger.last(everything) // with those whose creates were answered as Redis died
	x.startRedis()
	x.awaitCreate()
	x.wait(pick(500*time.Millisecond, 20*time.Second))
	o := a.finish()

	o.nothingLost(t)
	o.noneFailed(t, hotGET)
	if refused, found := x.onlyFailedBy("cold links", coldGETs); refused > 0 || found < 50 {
		t.Errorf("%d cold links were found and %d not", found, refused)
	}
	missing := map[string]bool{} // in the archive, when Redis died
	for _, e := range known {
		if !has[e] {
			missing[e.code] = true
		}
	}
	failed := 0
	for _, s := range o.of(recentGET).samples {
		if s.failure == "" {
			continue
		}
		if failed++; !missing[s.code] || s.failure != "503" {
			t.Errorf("an archived link: %s", s.failure)
		}
	}
	x.fault += fmt.Sprintf(": of archived links 0 GETs failed, of the %d that were not yet %d", len(missing), failed)
	if most := plan[create].perSecond; len(missing) > most {
		t.Errorf("%d links were not archived, more than a second's", len(missing))
	}
}

// Experiment 17. Redis is empty from one moment to the next. Its outbox of that moment names all
// that may be lost, and how long archiving was behind. A brief run does both to one fleet.
func TestRedisLosesEverything(t *testing.T) {
	losses := []loss{{"FLUSHALL", flushAll}, {"kill -9 Redis and start it without its AOF", loseAOF}}
	for some := range slices.Chunk(losses, pick(len(losses), 1)) {
		fault := some[0].fault
		for _, l := range some[1:] {
			fault += ", " + l.fault
		}
		t.Run(fault, func(t *testing.T) {
			x := start(t, 17, fault, fleet.Options{Archive: 3})
			a := x.archive()
			x.warm()
			a.cold(100)
			x.wait(pick(time.Second, 10*time.Second))
			named, inFlight := map[string]bool{}, map[string]bool{}
			var behind time.Duration
			times := pick(1, 5)
			for range times {
				for _, l := range some {
					at := time.Now()
					codes, since := pendingOf(l.lose(x, x.redis()))
					if len(codes) > 0 {
						behind = max(behind, at.Sub(since))
					}
					t.Logf("%s: %d links were not archived", l.fault, len(codes))
					maps.Copy(named, codes)
					x.awaitCreate()
					x.wait(pick(time.Second, 10*time.Second))
					// The link may have gone, and its mark have come after.
					maps.Copy(inFlight, x.load.creating(at))
				}
			}
			o := a.finish()

			for e := range o.gone {
				if !named[e.code] && !inFlight[e.code] {
					t.Errorf("%s is lost, and was archived", e.code)
				}
			}
			x.fault += fmt.Sprintf(", %d times: %d links were not archived yet, the oldest for %d ms, and %d are lost", times, len(named), behind.Milliseconds(), o.lost)
			t.Log(x.fault)
			if behind > 2*time.Second {
				t.Errorf("archiving was %s behind, with nothing else wrong", behind)
			}
			o.noneFailed(t, hotGET)
			// A lost link may be asked for; any other is there, or nobody can tell.
			for _, s := range o.of(recentGET).samples {
				if s.failure != "" && s.failure != "503" && !(s.failure == "404" && (named[s.code] || inFlight[s.code])) {
					t.Errorf("a recent link: %s", s.failure)
				}
			}
		})
	}
}

// loss is a way in which Redis loses everything. lose returns the outbox of the moment before.
type loss struct {
	fault string
	lose  func(x *experiment, db *redis.Client) (marks []redis.XMessage)
}

func flushAll(x *experiment, db *redis.Client) []redis.XMessage {
	tx := db.TxPipeline()
	marks := tx.XRange(x.t.Context(), redisstore.OutboxKey, "-", "+")
	tx.FlushAll(x.t.Context())
	if _, err := tx.Exec(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
	return marks.Val()
}

func loseAOF(x *experiment, db *redis.Client) []redis.XMessage {
	if err := db.Do(x.t.Context(), "client", "pause", 10_000, "write").Err(); err != nil {
		x.t.Fatal(err)
	}
	marks, err := db.XRange(x.t.Context(), redisstore.OutboxKey, "-", "+").Result()
	if err != nil {
		x.t.Fatal(err)
	}
	x.fleet.Redis.Kill()
	if err := os.RemoveAll(filepath.Join(x.fleet.Redis.Data, "appendonlydir")); err != nil {
		x.t.Fatal(err)
	}
	x.wait(pick(500*time.Millisecond, 5*time.Second))
	x.startRedis()
	return marks
}

// creating lists the codes of links whose creates were under way at a time, or began right then.
func (l *load) creating(at time.Time) map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	codes := map[string]bool{}
	for _, s := range l.samples {
		if s.kind == create && s.began.Before(at.Add(100*time.Millisecond)) && s.ended().After(at) {
			codes[s.code] = true
		}
	}
	return codes
}

// Experiment 19. Links are changed, disabled and deleted just before Redis evicts them, while others
// read and so restore them. Whoever asks afterwards, wherever, gets what was written last: at once, if
// there are no near caches, and with them as soon as they have heard of it.
func TestChangesAndEvictions(t *testing.T) {
	t.Run("without near caches", func(t *testing.T) { changeAndEvict(t, "without near caches", 0, "CACHE_BYTES=0") })
	t.Run("with near caches", func(t *testing.T) {
		if !*long { // they keep readers from Redis, and so most races from happening
			t.Skip("with -long")
		}
		changeAndEvict(t, "with near caches", time.Second) // see "The near cache" in docs/design.md
	})
}

func changeAndEvict(t *testing.T, caches string, bound time.Duration, env ...string) {
	x := start(t, 19, "links changed, disabled, deleted and read while Redis evicts them, "+caches, fleet.Options{Archive: 3, Env: env})
	r := &races{archive: x.archive(), bound: bound, final: map[string]state{}}
	for _, b := range x.fleet.Backends {
		r.backends = append(r.backends, quietLoad(t, b.URL, x.fleet.APIKey, x.ledger))
	}
	var writers sync.WaitGroup
	until := time.Now().Add(pick(5*time.Second, 60*time.Second))
	for w := range 12 {
		writers.Go(func() {
			for n := w; time.Now().Before(until); n++ {
				r.life(n)
			}
		})
	}
	writers.Wait()
	r.verified()
	for code, want := range r.final {
		r.evict(entry{code: code})
		for _, b := range r.backends {
			if got := b.state(code); got != want {
				t.Errorf("afterwards %s is %v, want %v", code, got, want)
			}
		}
	}
	o := r.finish()

	x.fault += fmt.Sprintf(": %d changes, %d evictions, %d reads", r.changes.Load(), r.evictions.Load(), r.reads.Load())
	t.Log(x.fault)
	for _, w := range r.wrong[:min(20, len(r.wrong))] {
		t.Error(w)
	}
	if len(r.wrong) > 20 {
		t.Errorf("and %d more", len(r.wrong)-20)
	}
	if r.changes.Load() < 20 || r.evictions.Load() < r.changes.Load() {
		t.Error("this tested nothing")
	}
	o.nothingLost(t)
	o.noneFailed(t, create)
	o.noneFailed(t, GETs...)
}

// races are changes of links that are read and evicted at the same time.
type races struct {
	*archive
	backends []*load
	bound    time.Duration // after which nobody gets what was there before a change

	changes, evictions, reads atomic.Int64

	mu    sync.Mutex
	final map[string]state // of links, after all their changes
	wrong []string         // answers that should not have been
}

// life makes a link, changes it twice, and deletes or disables it.
func (r *races) life(n int) {
	e, s := r.backends[n%len(r.backends)].create()
	if s.failure != "" {
		r.x.t.Errorf("a create: %s", s.failure)
		return
	}
	is := state{http.StatusFound, e.target}
	for round := range 2 {
		next := state{http.StatusFound, fmt.Sprintf("%s/%d", e.target, round)}
		r.change(e, is, next, http.MethodPatch, fmt.Sprintf(`{"url":%q}`, next.target))
		is = next
	}
	gone := state{status: http.StatusGone}
	if n%2 == 0 {
		r.change(e, is, gone, http.MethodDelete, "")
	} else {
		r.change(e, is, gone, http.MethodPatch, `{"disabled":true}`)
	}
	r.mu.Lock()
	r.final[e.code] = gone
	r.mu.Unlock()
}

// change changes a link that is in the archive alone, while it is read at every backend and evicted
// whenever Redis may.
func (r *races) change(e entry, was, is state, method, body string) {
	r.eventually("the link is archived, and evicted", func() bool { return r.evict(e) > 0 || !r.inRedis(e) })
	ctx, end := context.WithCancel(r.x.t.Context())
	var written atomic.Int64 // when the change was acknowledged; 0 before
	var others sync.WaitGroup
	for _, b := range r.backends {
		others.Go(func() {
			for ctx.Err() == nil {
				at, began := written.Load(), time.Now()
				got := b.state(e.code)
				r.reads.Add(1)
				if late := at > 0 && began.After(time.Unix(0, at).Add(r.bound)); got != is && (got != was || late) {
					r.mu.Lock()
					r.wrong = append(r.wrong, fmt.Sprintf("%s is %v, and shall be %v; before it was %v (too late for that: %t)", e.code, got, is, was, late))
					r.mu.Unlock()
				}
			}
		})
	}
	others.Go(func() {
		for ctx.Err() == nil {
			r.evictions.Add(int64(r.evict(e)))
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		}
	})
	// A link that is evicted each time it is restored is answered 503, and may be changed all the same.
	fleettest.Eventually(r.x.t, recovery, "the link is changed", func() bool {
		b := r.backends[rand.IntN(len(r.backends))]
		resp, answer, err := do(r.x.t.Context(), b.client, method, b.url+"/links/"+e.code, b.key, body)
		if err != nil || resp.StatusCode >= 300 && resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != is.status {
			r.x.t.Errorf("%s %s: %v, %v, %s", method, body, resp, err, answer)
		}
		return err == nil && resp.StatusCode != http.StatusServiceUnavailable
	})
	written.Store(time.Now().UnixNano())
	r.changes.Add(1)
	time.Sleep(r.bound + 300*time.Millisecond)
	end()
	others.Wait()
}

// state is what a GET of a link is answered with.
type state struct {
	status int
	target string
}

// state asks for a link. It is zero if there is no answer.
func (l *load) state(code string) state {
	resp, _, err := do(context.Background(), l.client, http.MethodGet, l.url+"/"+code, "", "")
	if err != nil {
		return state{}
	}
	return state{resp.StatusCode, resp.Header.Get("Location")}
}

// Experiment 20. A code that was chosen stands for its link, although the archive alone has it.
func TestChosenCodeInTheArchiveAlone(t *testing.T) {
	const atOnce = 1000
	rounds := pick(1, 20)
	x := start(t, 20, fmt.Sprintf("a chosen code that the archive alone has, asked for %d at once, %d times", atOnce, rounds), fleet.Options{Archive: 3})
	a := x.archive()
	var own []entry
	for round := range rounds + pick(50, 500) {
		e := entry{fmt.Sprintf("own-%d", round), fmt.Sprintf("https://example.com/own/%d", round)}
		if status := x.tryChosen(x.fleet.Backends[round%3].URL, e.code, e.target); status != http.StatusCreated {
			t.Fatalf("a chosen code: %d", status)
		}
		own = append(own, e)
	}
	if err := x.ledger.addAside(own); err != nil {
		t.Fatal(err)
	}
	a.evictAll(own)
	var mu sync.Mutex
	answers := map[int]int{}
	ask := func(codes func(i int) string) {
		var crowd sync.WaitGroup
		for i := range atOnce {
			crowd.Go(func() {
				status := x.tryChosen(x.fleet.Backends[i%3].URL, codes(i), fmt.Sprintf("https://example.com/thief/%d", i))
				mu.Lock()
				answers[status]++
				mu.Unlock()
			})
		}
		crowd.Wait()
	}
	for round := range rounds {
		ask(func(int) string { return own[round].code })
	}
	ask(func(i int) string { a.evict(own[i%len(own)]); return own[i%len(own)].code })
	t.Logf("answered %v", answers)
	a.evict(own...)
	o := a.finish()

	o.nothingLost(t) // nor does one lead elsewhere, which finish judges
	o.noneFailed(t, create)
	o.noneFailed(t, GETs...)
	if n := answers[http.StatusConflict]; n != atOnce*(rounds+1) {
		t.Errorf("answered %v, want 409 alone", answers)
	}
	x.fault += fmt.Sprintf(": %d times 409", answers[http.StatusConflict])
}

// Experiment 21. Nothing that is not archived may be evicted, so Redis fills up and says so.
func TestPostgresAwayUntilRedisIsFull(t *testing.T) {
	x := begin(t, 21, "PostgreSQL away until Redis is full of links that are not archived", func() *fleet.Fleet {
		f := fleettest.Start(t, fleet.Options{Archive: 3, Env: []string{"JOURNAL_MAX=1000"}})
		db := fleettest.RedisClient(t, f.Redis.Addr)
		fleettest.Eventually(t, recovery, "the archive is ready", func() bool { return db.Exists(t.Context(), "archive").Val() == 1 })
		for _, db := range f.Archive { // before anything is archived, so that nothing may be evicted
			db.Kill()
		}
		return f
	})
	a := x.archive()
	db := x.redis()
	x.warm()
	x.wait(pick(500*time.Millisecond, 5*time.Second))
	if err := db.ConfigSet(t.Context(), "notify-keyspace-events", "Ee").Err(); err != nil {
		t.Fatal(err)
	}
	evictions := db.Subscribe(t.Context(), "__keyevent@0__:evicted")
	defer evictions.Close()
	if _, err := evictions.Receive(t.Context()); err != nil { // from here on it hears
		t.Fatal(err)
	}
	if err := db.ConfigSet(t.Context(), "maxmemory", fmt.Sprint(info(t, db, "memory", "used_memory")+pick(2<<20, 32<<20))).Err(); err != nil {
		t.Fatal(err)
	}
	// A create is 503 if there was room for the link, and then none for its entry in the journal.
	refused, half := 0, 0
	fleettest.Eventually(t, recovery, "Redis is full", func() bool {
		_, failed := x.bulk(100, 1900)
		refused += failed[http.StatusInsufficientStorage]
		delete(failed, http.StatusInsufficientStorage)
		half += failed[http.StatusServiceUnavailable]
		delete(failed, http.StatusServiceUnavailable)
		if len(failed) > 0 {
			t.Fatalf("a bulk was answered %v", failed)
		}
		return refused >= 500
	})
	for end := time.Now().Add(pick(3*time.Second, 60*time.Second)); time.Now().Before(end); x.wait(200 * time.Millisecond) {
		switch status := x.tryCreate(); status {
		case http.StatusInsufficientStorage:
			refused++
		case http.StatusServiceUnavailable:
			half++
		case http.StatusCreated: // buffers come and go
		default:
			t.Errorf("a create while Redis is full: %d", status)
		}
	}
	evicted := info(t, db, "stats", "evicted_keys")
	links := 0
	for range evicted {
		m, err := evictions.ReceiveMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s was evicted", m.Payload) // as claims of chores may be
		if strings.HasPrefix(m.Payload, redisstore.LinkKey("")) {
			links++
		}
	}
	x.startPostgres()
	a.eventually("links can be made again", func() bool {
		_, failed := x.bulk(100, 1900)
		return len(failed) == 0
	})
	x.wait(pick(500*time.Millisecond, 20*time.Second))
	o := a.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.failedOnlyBy(t, "507", "503")
	refused += o.failures()["create: 507"]
	half += o.failures()["create: 503"]
	if 20*half > refused {
		t.Errorf("%d creates were answered 507 and %d 503", refused, half)
	}
	if links > 0 {
		t.Errorf("%d links were evicted, and nothing was archived", links)
	}
	x.fault += fmt.Sprintf(": %d creates were answered 507, %d 503, and %d links evicted before PostgreSQL came back", refused, half, links)
}
