package e2e_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dchest/siphash"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fasthttp"

	snow "snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/kafka"
	"snowlink/internal/kafka/kafkatest"
)

var long = flag.Bool("long", false, "send a million visits whose addresses must be nowhere afterwards, three times")

// visitors are people with addresses and browsers of their own. What they have in common finds any of
// them.
const (
	addresses4 = "198.18." // and 198.19.: there are 131,072
	addresses6 = "2001:db8:5e1f:c0de:"
	near       = "127.201.113.77" // of the one who comes through Nginx
)

func visitorAddress(i int) string {
	if i%8 == 0 {
		n := i / 8
		return netip.AddrFrom4([4]byte{198, byte(18 + n>>16), byte(n >> 8), byte(n)}).String()
	}
	return fmt.Sprintf("%s:%x:%x", addresses6, i>>16, i&0xffff)
}

func visitorAgent(i int) string {
	return fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 unmistakable/%d", i)
}

// A search looks for what must not be there.
type search struct {
	t     *testing.T
	texts [][]byte
	known []byte // is in what was looked through: or the search would see nothing
	found int    // how often it was
}

func (s *search) in(where string, content []byte) {
	s.t.Helper()
	if bytes.Contains(content, s.known) {
		s.found++
	}
	for _, text := range s.texts {
		if i := bytes.Index(content, text); i >= 0 {
			s.t.Errorf("%s has %q: %q", where, text, content[max(0, i-60):min(len(content), i+60)])
		}
	}
}

// end says that a place was looked through.
func (s *search) end(place string) {
	s.t.Helper()
	if s.found == 0 {
		s.t.Errorf("the link is not in %s: the search sees nothing there", place)
	}
	s.found = 0
}

// folder looks through all files of a folder, but for programs.
func (s *search) folder(dir string) {
	s.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil {
			s.in(path, content)
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
}

// redis looks through all keys and values.
func (s *search) redis(client *redis.Client) {
	s.t.Helper()
	for keys := client.Scan(s.t.Context(), 0, "*", 1000).Iterator(); keys.Next(s.t.Context()); {
		dump, err := client.Dump(s.t.Context(), keys.Val()).Result()
		if err != nil && err != redis.Nil {
			s.t.Fatal(err)
		}
		s.in("the key "+keys.Val(), []byte(keys.Val()+dump))
	}
}

// postgres looks through all rows: in files, long values are compressed.
func (s *search) postgres(url string) {
	s.t.Helper()
	db, err := pgx.Connect(s.t.Context(), url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close(context.Background())
	rows, _ := db.Query(s.t.Context(), `SELECT relname FROM pg_stat_user_tables`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) == 0 {
		s.t.Fatal(tables, err)
	}
	inHex := search{t: s.t, known: []byte(hex.EncodeToString(s.known))} // as bytes are shown
	for _, text := range s.texts {
		inHex.texts = append(inHex.texts, []byte(hex.EncodeToString(text)))
	}
	for _, table := range tables {
		rows, _ := db.Query(s.t.Context(), `SELECT t::text FROM `+pgx.Identifier{table}.Sanitize()+` t`)
		var row string
		_, err := pgx.ForEachRow(rows, []any{&row}, func() error {
			s.in("the table "+table, []byte(row))
			inHex.in("the table "+table, []byte(row))
			return nil
		})
		if err != nil {
			s.t.Error(err)
		}
	}
	s.found += inHex.found
}

// kafka looks through all records: in files they are compressed. It returns the hashes of visitors.
func (s *search) kafka(addr string) map[uint64]bool {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(kafka.DefaultTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	hashes := make(map[uint64]bool)
	for {
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second) // nothing is sent any more
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return hashes
		}
		for r := range fetches.RecordsAll() {
			s.in("a record of Kafka", append(r.Key, r.Value...))
			var value struct{ Visitors []string }
			if err := json.Unmarshal(r.Value, &value); err != nil {
				s.t.Fatal(err)
			}
			for _, text := range value.Visitors {
				hash, err := strconv.ParseUint(text, 10, 64)
				if err != nil {
					s.t.Fatal(err)
				}
				hashes[hash] = true
			}
		}
	}
}

// visitorHash is what becomes of a visitor, as docs/privacy.md says, for who has the salt.
func visitorHash(salt []byte, code string, i int) uint64 {
	key := func(n int) uint64 { return binary.LittleEndian.Uint64(salt[8*n:]) }
	b := binary.LittleEndian.AppendUint64(nil, siphash.Hash(key(0), key(1), []byte(visitorAgent(i))))
	return siphash.Hash(key(2), key(3), append(b, code+"\x00"+visitorAddress(i)...))
}

// Visitors' addresses and what their browsers say are nowhere: not in Redis, Kafka, PostgreSQL or any file
// or log of the fleet. What is kept of visitors is made with a salt, and once its day is over the salt
// is nowhere either.
func TestNoAddressIsKept(t *testing.T) {
	for name, through := range map[string]struct {
		archive int
		kafka   bool
	}{
		"Redis":                {0, false},
		"Redis and PostgreSQL": {1, false},
		"Kafka and PostgreSQL": {1, true},
	} {
		t.Run(name, func(t *testing.T) { noAddressIsKept(t, through.archive, through.kafka) })
	}
}

func noAddressIsKept(t *testing.T, archive int, throughKafka bool) {
	visitors, links := 3000, 20
	if *long {
		visitors = 1_000_000
	}
	options := fleet.Options{Archive: archive, AccessLog: true}
	var broker *kafkatest.Broker
	if throughKafka {
		broker = kafkatest.Start(t)
		options.Env = []string{"KAFKA_BROKERS=" + broker.Addr}
	}
	f := fleettest.Start(t, options)
	redises, state := []*fleet.Redis{f.Redis}, f.Redis
	if f.State != nil {
		redises, state = append(redises, f.State), f.State
	}
	for _, r := range redises { // or what it dumps would be compressed
		if err := fleettest.RedisClient(t, r.Addr).ConfigSet(t.Context(), "rdbcompression", "no").Err(); err != nil {
			t.Fatal(err)
		}
	}
	c := &snow.Client{BaseURL: f.URL, APIKey: f.APIKey}
	var codes []string
	for range links {
		made, err := c.Create(t.Context(), clientLink("https://example.com/", "a"))
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, made.Code)
	}
	prefix6 := netip.MustParseAddr(addresses6 + ":").As16()
	s := &search{t: t, known: []byte(codes[0]), texts: [][]byte{
		[]byte(addresses4), []byte("198.19."), []byte(addresses6), prefix6[:8], []byte("unmistakable"), []byte("secret-page"), []byte(near),
	}}

	began := time.Now()
	// Each comes to one of the links, and half of them to the same one: a few visitors are kept otherwise
	// than many.
	codeOf := func(i int) string { return codes[i%2*(i/2)%links] }
	var next atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			for i := int(next.Add(1)) - 1; i < visitors && t.Context().Err() == nil; i = int(next.Add(1)) - 1 {
				// Past Nginx, which would see one address of ours: a backend believes what comes from this machine.
				request.SetRequestURI(f.Backends[i%3].URL + "/" + codeOf(i))
				request.Header.Set("X-Forwarded-For", visitorAddress(i))
				request.Header.Set("User-Agent", visitorAgent(i))
				request.Header.Set("Referer", fmt.Sprintf("https://example.org/secret-page-%d", i))
				if err := fasthttp.Do(request, response); err != nil || response.StatusCode() != 302 {
					t.Errorf("a visit: %d, %v", response.StatusCode(), err)
					return
				}
			}
		})
	}
	all.Wait()
	// Through Nginx, which writes a log.
	visit(t, client(t, near), f.URL+"/"+codes[0], "User-Agent: "+firefox)
	fleettest.Eventually(t, 30*time.Second, "all visits are counted", func() bool {
		answer, err := c.Clicks(t.Context(), snow.ClicksQuery{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Clicks == int64(visitors)+1
	})
	t.Logf("%d visits were sent and counted in %s", visitors, time.Since(began).Round(time.Second))

	store := fleettest.RedisClient(t, state.Addr)
	key := "clicks:salt:" + time.Now().UTC().Format(time.DateOnly)
	salt, err := store.Get(t.Context(), key).Bytes()
	if err != nil || len(salt) != 32 {
		t.Fatalf("%s is %x, %v", key, salt, err)
	}
	day, _ := time.Parse(time.DateOnly, key[len("clicks:salt:"):])
	if ttl := store.TTL(t.Context(), key).Val(); ttl <= 0 || ttl > time.Until(day.Add(26*time.Hour)) {
		t.Errorf("%s lives for %s", key, ttl)
	}
	saltInFiles := func() bool {
		found := false
		err := filepath.WalkDir(state.Data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			found = found || bytes.Contains(content, salt)
			return err
		})
		return found || err != nil // it is being rewritten
	}
	if !saltInFiles() {
		t.Error("the salt is not in the files of Redis: the search sees nothing there")
	}

	// The day is over: Redis forgets the salt, and a backend asks for another.
	if err := store.PExpire(t.Context(), key, time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 10*time.Second, "the salt is forgotten", func() bool { return store.Exists(t.Context(), key).Val() == 0 })
	long := day.AddDate(0, 0, -2).Format(time.DateOnly)
	if err := store.SetXX(t.Context(), "clicks:salts:since", long, 0).Err(); err != nil {
		t.Fatal(err)
	}
	for _, b := range f.Backends {
		if err := b.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := f.Backends[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, time.Minute, "the salt leaves the files of Redis", func() bool { return !saltInFiles() })
	if err := f.Backends[0].Stop(t.Context()); err != nil {
		t.Error(err)
	}
	s.texts = append(s.texts, salt[:16], salt[16:], []byte(hex.EncodeToString(salt[:8])))

	for _, r := range redises {
		s.redis(fleettest.RedisClient(t, r.Addr))
	}
	s.end("Redis")
	for _, db := range f.Archive {
		s.postgres(db.URL)
		s.end("PostgreSQL")
		// It writes what it has to its files when it ends.
		if err := db.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if throughKafka {
		hashes := s.kafka(broker.Addr)
		s.end("Kafka")
		if !hashes[visitorHash(salt, codeOf(1), 1)] {
			t.Error("with the salt, a visitor is not found: what is kept of visitors is not what docs/privacy.md says")
		}
		s.folder(broker.Dir)
		s.end("the files of Kafka")
	}
	s.folder(f.Dir)
	s.end("the files of the fleet")
	t.Logf("everything was looked through within %s", time.Since(began).Round(time.Second))
}
