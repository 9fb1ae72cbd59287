package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/httpapi"
)

const (
	bulkLinks  = httpapi.MaxItems // in a request
	bulkBar    = 5                // a bulk must make at least so many times the links of single creates
	exportRoom = 64 << 20         // bytes: the most memory that an export may take

	onlyLink  = `{"url":"` + longTarget + `"}` + "\n"
	codeField = `"code":"`
)

// bulkBench measures what one backend offers for many links: bulk against single creates, in turns,
// by clients that send one request after the other; then an export of many links and its import
// into another fleet.
type bulkBench struct {
	rounds   int
	duration time.Duration
	links    int
	progress io.Writer
}

func (b *bulkBench) run(ctx context.Context, stdout io.Writer) (err error) {
	options := fleet.Options{Backends: 1, NoNginx: true, RedisConfig: []string{"maxmemory 0"}}
	f, err := fleet.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var missed []error
	holds := func(ok bool, bar string) string {
		if ok {
			return bar
		}
		missed = append(missed, errors.New("missed: "+bar))
		return bar + ", missed"
	}

	var ratios, of64, single, many, bulks []float64
	for round := range b.rounds {
		one, err := b.creates(ctx, f, 1)
		if err != nil {
			return err
		}
		links, err := b.bulks(ctx, f)
		if err != nil {
			return err
		}
		all, err := b.creates(ctx, f, 64)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.progress, "%d/%d: %.0f links a second one by one, %.0f over 64 connections, %.0f in bulk\n", round+1, b.rounds, one, all, links)
		single, many, bulks = append(single, one), append(many, all), append(bulks, links)
		ratios, of64 = append(ratios, links/one), append(of64, links/all)
	}
	fmt.Fprintf(stdout, "links a second over one connection: one by one %s, in bulk of %s %s: %.1f times (%s)\n",
		thousands(median(single)), thousands(bulkLinks), thousands(median(bulks)), median(ratios),
		holds(median(ratios) >= bulkBar, fmt.Sprintf("bar: %d", bulkBar)))
	fmt.Fprintf(stdout, "one by one over 64 connections: %s; one connection in bulk is %.1f times that\n", thousands(median(many)), median(of64))

	return errors.Join(b.move(ctx, f, options, stdout, holds), errors.Join(missed...))
}

// creates returns how many links a second clients make by single creates.
func (b *bulkBench) creates(ctx context.Context, f *fleet.Fleet, connections int) (float64, error) {
	r, err := load{
		script: "create.lua", url: f.URL + "/generate_url", threads: 1, connections: connections, duration: b.duration,
		env: []string{"API_KEY=" + f.APIKey},
	}.run(ctx)
	return r.PerSecond, err
}

// bulks returns how many links a second one client makes by bulks of bulkLinks.
func (b *bulkBench) bulks(ctx context.Context, f *fleet.Fleet) (float64, error) {
	body := bulkBody(bulkLinks)
	before, err := spent([]*fleet.Fleet{f})
	if err != nil {
		return 0, err
	}
	start, made := time.Now(), 0
	for time.Since(start) < b.duration {
		if err := createBulk(ctx, f, body, bulkLinks); err != nil {
			return 0, err
		}
		made += bulkLinks
	}
	took := time.Since(start)
	after, err := spent([]*fleet.Fleet{f})
	if err != nil {
		return 0, err
	}
	perLink := 1e6 / float64(made)
	fmt.Fprintf(b.progress, "in bulk a link takes %.1f µs of the backend and %.1f µs of Redis\n", (after.Backends-before.Backends)*perLink, (after.Redis-before.Redis)*perLink)
	return float64(made) / took.Seconds(), nil
}

func bulkBody(links int) []byte {
	var body bytes.Buffer
	for i := range links {
		fmt.Fprintf(&body, onlyLink, i)
	}
	return body.Bytes()
}

// createBulk makes links and checks that each of them was made.
func createBulk(ctx context.Context, f *fleet.Fleet, body []byte, links int) error {
	answer, err := send(ctx, f, "POST", "/links/bulk", bytes.NewReader(body))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer)
	if err := errors.Join(err, answer.Close()); err != nil {
		return err
	}
	if n := bytes.Count(text, []byte(codeField)); n != links || bytes.Contains(text, []byte(`"index"`)) {
		return fmt.Errorf("of %d links %d were made: %.200s", links, n, text)
	}
	return nil
}

// send sends a request with the fleet's key. Any answer but 200 is an error.
func send(ctx context.Context, f *fleet.Fleet, method, path string, body io.Reader, headers ...string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, f.URL+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("API-Key", f.APIKey)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp.Body, nil
}

// move exports links, as NDJSON and as CSV. Then it exports NDJSON again straight into an import by
// another fleet.
func (b *bulkBench) move(ctx context.Context, f *fleet.Fleet, options fleet.Options, stdout io.Writer, holds func(bool, string) string) (err error) {
	// The export shall have these links alone, so the journal goes too.
	s, err := newStock(f)
	if err != nil {
		return err
	}
	err = errors.Join(s.redis.FlushAll(ctx).Err(), s.close())
	if err != nil {
		return err
	}
	for left := b.links; left > 0; left -= bulkLinks {
		n := min(left, bulkLinks)
		if err := createBulk(ctx, f, bulkBody(n), n); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.progress, "%s links are stored\n", thousands(b.links))

	backend := f.Backends[0]
	for _, accept := range []string{"application/x-ndjson", "text/csv"} {
		// Restarted: memory that the process has in reserve would hide what the export takes.
		if err := errors.Join(backend.Stop(ctx), backend.Start(ctx)); err != nil {
			return err
		}
		var lines int
		took, extra, err := watch(backend, func() error {
			answer, err := send(ctx, f, "GET", "/links/export", nil, "Accept: "+accept)
			if err != nil {
				return err
			}
			lines, err = countLines(answer)
			return errors.Join(err, answer.Close())
		})
		if err != nil {
			return err
		}
		if accept == "text/csv" {
			lines-- // the header row
		}
		if lines != b.links {
			return fmt.Errorf("of %d links %d were exported", b.links, lines)
		}
		fmt.Fprintf(stdout, "export of %s links as %s: %.1f s, %.1f MiB of memory (%s)\n",
			thousands(b.links), accept, took.Seconds(), mib(extra), holds(extra <= exportRoom, fmt.Sprintf("at most %.0f MiB", mib(exportRoom))))
	}

	to, err := fleet.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	for _, want := range []string{"created", "exists"} {
		took, extra, err := watch(to.Backends[0], func() error {
			exported, err := send(ctx, f, "GET", "/links/export", nil)
			if err != nil {
				return err
			}
			defer exported.Close()
			answer, err := send(ctx, to, "POST", "/links/import", exported)
			if err != nil {
				return err
			}
			defer answer.Close()
			text, err := io.ReadAll(answer)
			if summary := fmt.Sprintf(`"%s":%d,`, want, b.links); err == nil && !bytes.Contains(text, []byte(summary)) {
				err = fmt.Errorf("not all were %s: %s", want, text[max(0, len(text)-200):])
			}
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "import of %s links (%s), while they are exported: %.1f s, %.1f MiB of memory\n", thousands(b.links), want, took.Seconds(), mib(extra))
	}
	return nil
}

// watch returns how long something takes, and by how many bytes a backend's memory grows meanwhile.
func watch(b *fleet.Backend, do func() error) (took time.Duration, extra int, err error) {
	if err := b.ForgetPeak(); err != nil {
		return 0, 0, err
	}
	before, _, err := b.Memory()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := do(); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	_, peak, err := b.Memory()
	return took, peak - before, err
}

func countLines(r io.Reader) (int, error) {
	lines, buf := 0, make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		lines += bytes.Count(buf[:n], []byte("\n"))
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }
