package pgstats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres"
)

// Generation is clicks to be made up, for load tests.
type Generation struct {
	Clicks int64 // in all, about
	Links  int   // with codes as GeneratedCode has them
	Days   int   // the last one is that of Until
	Until  time.Time
	Seed   uint64
}

// How the generated links are spread. Owner 0 and tag 0 have the most clicks.
const (
	generatedOwners = 100
	generatedTags   = 50
	generatedPool   = 20_000 // combinations of facts
)

// GeneratedCode is the code of a link. The links with the lowest numbers have the most clicks.
func GeneratedCode(number int) string { return fmt.Sprintf("gen%06d", number) }

// GeneratedOwner is the owner of a link, and GeneratedTag its tag.
func GeneratedOwner(number int) string { return fmt.Sprint("owner", number%generatedOwners) }

// GeneratedTag is the tag of a link.
func GeneratedTag(number int) string { return fmt.Sprint("tag", number%generatedTags) }

// ErrInUse reports that a database has links or clicks that no Generate made.
var ErrInUse = errors.New("the database has links or clicks of others")

// Generate fills the databases as Apply and Tend would leave them: the days that are over in one row
// for each scope, and the last day in rows of Apply. Links, countries, referrers and so on are about as
// unequal as visitors make them: the number of clicks of each falls with its rank. It calls progress
// now and then, unless that is nil, with the clicks so far, about.
//
// It may be broken off and called again with the same Generation: a day is made whole or not at all, and
// each day's clicks follow from Seed and the day. A database with anything else in it is left alone: the
// error is [ErrInUse].
func (s *Store) Generate(ctx context.Context, g Generation, progress func(clicks int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	if err := s.claim(ctx, g); err != nil {
		return err
	}
	m := newMaker(g)
	today := dayOf(g.Until)
	perDay := g.Clicks / int64(g.Days)
	var done int64
	for day := today - int32(g.Days) + 1; day < today; day++ {
		n, err := s.generateDay(ctx, m.on(day), day)
		if err != nil {
			return err
		}
		if n == 0 {
			n = perDay // it was made before
		}
		done += n
		progress(done)
	}
	_, err := s.generateToday(ctx, m.on(today), today, func(n int64) { progress(done + n) })
	return err
}

// claim marks the databases by a producer, or refuses them.
func (s *Store) claim(ctx context.Context, g Generation) error {
	mark := fmt.Appendf(nil, "generator %d %d %d %d", g.Clicks, g.Links, g.Days, g.Seed)
	return postgres.Each(s.shards.DBs(), func(db *postgres.DB) error {
		var free bool
		err := db.Do(ctx, "clicks_generate", time.Minute, func(ctx context.Context, pool *pgxpool.Pool) error {
			err := pool.QueryRow(ctx, `
SELECT NOT EXISTS (SELECT FROM links) AND (EXISTS (SELECT FROM clicks_producers WHERE producer = $1)
	OR NOT EXISTS (SELECT FROM clicks_producers) AND NOT EXISTS (SELECT FROM clicks_hours))`, mark).Scan(&free)
			if err != nil || !free {
				return err
			}
			_, err = pool.Exec(ctx, `
INSERT INTO clicks_producers (producer, ordered, last, mask, seen) VALUES ($1, true, 0, 0, $2) ON CONFLICT DO NOTHING`, mark, s.now())
			return err
		})
		if err == nil && !free {
			err = ErrInUse
		}
		return err
	})
}

// maker draws clicks.
type maker struct {
	*rand.Rand
	Generation
	words   *words
	pool    []facts
	known   []clicks.Facts
	weights []float64 // of facts, up to each
	perDay  []float64 // clicks of each link
	hours   []int     // of 1,000 clicks
}

func newMaker(g Generation) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(g.Seed, 1)), Generation: g, words: newWords()}
	country, referrer, campaign := m.zipf(200, 1.1), m.zipf(2000, 1), m.zipf(100, 1)
	var sum float64
	for rank := range generatedPool {
		f := clicks.Facts{
			clicks.Country: fmt.Sprintf("%c%c", 'A'+country()%26, 'A'+country()/8%26), clicks.Browser: fmt.Sprint("Browser ", m.zipf(12, 1)()),
			clicks.OS: fmt.Sprint("System ", m.zipf(8, 1)()), clicks.Device: []string{"phone", "desktop", "tablet", "tv"}[m.zipf(4, 1.5)()],
		}
		if m.IntN(3) > 0 {
			f[clicks.Referrer] = fmt.Sprintf("site%d.example", referrer())
		}
		if m.IntN(5) == 0 {
			f[clicks.Source], f[clicks.Medium], f[clicks.Campaign] = fmt.Sprint("source", campaign()/10), "social", fmt.Sprint("campaign", campaign())
		}
		if m.IntN(30) == 0 {
			f[clicks.Via] = "qr"
		}
		if m.IntN(10) == 0 {
			f[clicks.Bot] = []string{"crawler", "preview", "prefetch"}[m.IntN(3)]
		}
		m.known, m.pool = append(m.known, f), append(m.pool, m.words.facts(&f))
		sum += 1 / math.Pow(float64(rank+1), 0.8)
		m.weights = append(m.weights, sum)
	}
	sum = 0
	for rank := range g.Links {
		m.perDay = append(m.perDay, 1/math.Pow(float64(rank+1), 0.9))
		sum += m.perDay[rank]
	}
	for i := range m.perDay {
		m.perDay[i] *= float64(g.Clicks) / float64(g.Days) / sum
	}
	for hour := range 24 {
		for range int(30 + 25*math.Sin(float64(hour-9)/24*2*math.Pi)) {
			m.hours = append(m.hours, hour)
		}
	}
	return m
}

// on draws the clicks of a day from now on.
func (m *maker) on(day int32) *maker {
	m.Rand = rand.New(rand.NewPCG(m.Seed, uint64(day)))
	return m
}

// zipf draws ranks below n.
func (m *maker) zipf(n int, s float64) func() int {
	var sums []float64
	var sum float64
	for rank := range n {
		sum += 1 / math.Pow(float64(rank+1), s)
		sums = append(sums, sum)
	}
	return func() int { return min(sort.SearchFloat64s(sums, m.Float64()*sum), n-1) }
}

// clicks draws how many clicks a link has on a day.
func (m *maker) clicks(link int) int {
	mean := m.perDay[link] * (0.5 + m.Float64())
	n := int(mean)
	if m.Float64() < mean-float64(n) {
		n++
	}
	return n
}

// fact draws the facts of a click of a link: each link's visitors are of other kinds.
func (m *maker) fact(link int) int {
	i := sort.SearchFloat64s(m.weights, m.Float64()*m.weights[len(m.weights)-1])
	return (i + link*7) % len(m.pool)
}

func (m *maker) hour() int { return m.hours[m.IntN(len(m.hours))] }

// generateDay writes the rows of a day that is over, unless they are there: then there are 0 clicks.
func (s *Store) generateDay(ctx context.Context, m *maker, day int32) (n int64, err error) {
	if there, err := s.generated(ctx, day); there || err != nil {
		return 0, err
	}
	rows := make(map[*postgres.DB][][]any)
	var e encoder
	put := func(key string, r *row) {
		home := s.shards.Homes(key)[0]
		rows[home] = append(rows[home], r.hoursValues(&e, key, day, linksPast))
	}
	shared := make(map[string]*row)
	of := func(key string) *row {
		if shared[key] == nil {
			shared[key] = newRow(m.words)
		}
		return shared[key]
	}
	r := newRow(m.words)
	for link := range m.Links {
		clicked := m.clicks(link)
		if clicked == 0 {
			continue
		}
		n += int64(clicked)
		owner, tag := GeneratedOwner(link), GeneratedTag(link)
		all := []*row{r, of(ofAll), of(ownerKey(owner)), of(tagKey(tag)), of(ownerTagKey(owner, tag))}
		r.reset()
		var sum both
		for range clicked {
			f, hour := m.pool[m.fact(link)], m.hour()
			bot := f[clicks.Bot] != none
			if bot {
				sum.bots++
			} else {
				sum.people++
			}
			visitor := m.Uint64()
			for _, r := range all {
				r.sums.at(hour).add(f, 1)
				if !bot && visitor%4 > 0 { // some come again
					r.visitors.add(visitor)
				}
			}
		}
		code := GeneratedCode(link)
		for i, r := range all {
			r.people += sum.people
			r.bots += sum.bots
			if i > 0 {
				r.links.add(code, sum)
			}
		}
		put(linkKey(code), r)
	}
	for key, r := range shared {
		put(key, r)
	}
	last := s.shards.Homes(ofAll)[0] // what generated looks for
	for home, some := range rows {
		if home != last {
			if err := copyHours(ctx, home, day, some); err != nil {
				return n, err
			}
		}
	}
	return n, copyHours(ctx, last, day, rows[last])
}

// generated reports whether there is something of a day.
func (s *Store) generated(ctx context.Context, day int32) (there bool, err error) {
	home := s.shards.Homes(ofAll)[0]
	err = home.Do(ctx, "clicks_generate", time.Minute, func(ctx context.Context, pool *pgxpool.Pool) error {
		return pool.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM clicks_hours WHERE scope = $1 AND day = $2) OR EXISTS (SELECT FROM clicks_new WHERE scope = $1 AND day = $2)`,
			[]byte(ofAll), day).Scan(&there)
	})
	return there, err
}

// copyHours writes the rows of a day, in place of what was left of it when somebody broke off.
func copyHours(ctx context.Context, db *postgres.DB, day int32, rows [][]any) error {
	slices.SortFunc(rows, func(a, b []any) int { return slices.Compare(a[3].([]byte), b[3].([]byte)) })
	return db.Do(ctx, "clicks_generate", 10*time.Minute, func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "DELETE FROM clicks_hours WHERE day = $1", day); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"clicks_hours"}, hoursColumns, pgx.CopyFromRows(rows))
			return err
		})
	})
}

// generateToday applies a day's clicks in batches, and merges what Tend would. What was applied before, Apply
// leaves out.
func (s *Store) generateToday(ctx context.Context, m *maker, day int32, progress func(clicks int64)) (n int64, err error) {
	var links []int // of each click
	for link := range m.Links {
		links = append(links, slices.Repeat([]int{link}, m.clicks(link))...)
	}
	m.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
	producer := fmt.Sprint("generator of day ", day)
	number := uint64(0)
	for some := range slices.Chunk(links, 5000) {
		number++
		b := clicks.Batch{Producer: producer, Number: number}
		hour := timeOf(day, int(n*24/int64(len(links))))
		slices.Sort(some)
		for i, link := range some {
			if i == 0 || some[i-1] != link {
				b.Counts = append(b.Counts, clicks.Count{Code: GeneratedCode(link), Owner: GeneratedOwner(link), Tags: []string{GeneratedTag(link)}, Hour: hour})
			}
			c := &b.Counts[len(b.Counts)-1]
			f := m.known[m.fact(link)]
			if f[clicks.Bot] == "" {
				c.Clicks++
				c.Visitors = append(c.Visitors, m.Uint64())
			} else {
				c.Bots++
			}
			c.Facts = append(c.Facts, clicks.FactCount{Facts: f, Clicks: 1})
		}
		if _, err := s.Apply(ctx, []clicks.Batch{b}); err != nil {
			return n, err
		}
		for _, db := range s.shards.DBs() {
			s.mergeHeaps(ctx, db)
		}
		n += int64(len(some))
		progress(n)
	}
	return n, nil
}
