package faults_test

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/template"
	"time"

	"snowlink/internal/fleet"
)

// row is an experiment's line in the table.
type row struct {
	Number                    int
	Fault                     string
	Seconds                   int
	GETs, Creates             int // sent
	Acknowledged, Lost, Wrong int
	FailedGETs, FailedCreates int
	Again                     int // requests sent a second time
	GETOutage, CreateOutage   time.Duration
	Held                      bool   // the test's promises
	Skipped                   string // why it was not run
}

var rows struct {
	sync.Mutex
	all []row
}

// addRow adds an experiment whose test has ended, which may be before its promises were judged.
func addRow(x *experiment) {
	o := x.outcome
	if o == nil {
		if x.t.Skipped() {
			addSkipped(x.number, x.fault, "a program is missing")
		} else {
			add(row{Number: x.number, Fault: x.fault + "; the test did not finish", Held: false})
		}
		return
	}
	gets, creates := o.of(GETs...), o.of(create)
	add(row{
		Number: x.number, Fault: x.fault, Seconds: int(o.to.Sub(o.from).Seconds()),
		GETs: gets.count(), Creates: creates.count(),
		Acknowledged: o.acknowledged, Lost: o.lost, Wrong: o.wrong() + o.misled,
		FailedGETs: gets.failed(), FailedCreates: creates.failed(),
		Again: o.sentAgain(), GETOutage: gets.outage(), CreateOutage: creates.outage(),
		Held: !x.t.Failed(),
	})
}

// addSkipped adds an experiment that cannot be run here.
func addSkipped(number int, fault, why string) {
	add(row{Number: number, Fault: fault, Skipped: why})
}

func add(r row) {
	rows.Lock()
	defer rows.Unlock()
	rows.all = append(rows.all, r)
}

var table = template.Must(template.New("").Funcs(template.FuncMap{
	"s": func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) },
}).Parse(`# Faults under load

Measured {{.Env.Date}} at {{.Env.Commit}}, by:

    make faults

| # | fault | load | acknowledged | lost | wrong | failed GET / create | sent again | longest outage of GET / create | promises |
|--:|---|---|--:|--:|--:|--:|--:|--:|---|
{{range .Rows -}}
{{if .Skipped -}}
| {{.Number}} | {{.Fault}} | not run: {{.Skipped}} | | | | | | | |
{{else -}}
| {{.Number}} | {{.Fault}} | {{.GETs}} GET, {{.Creates}} creates in {{.Seconds}} s | {{.Acknowledged}} | {{.Lost}} | {{.Wrong}} | {{.FailedGETs}} / {{.FailedCreates}} | {{.Again}} | {{s .GETOutage}} s / {{s .CreateOutage}} s | {{if .Held}}held{{else}}**broken**{{end}} |
{{end}}{{end}}
*Acknowledged* links were answered 201 and then read from every backend directly: *lost* ones were 404 at one of them,
*wrong* counts redirects, then or under load, to another target than the link's own. An *outage* is a span in which no
request of the kind succeeded. Clients do not retry, but for what browsers and curl do too: a request that Nginx cut off,
having just closed the idle connection it came on, is *sent again* on a new one, once. Only a reload may do that, and not
one in Compose.

Three backends behind Nginx over one Redis (from 13 on before an archive of three PostgreSQL, in 14 of one), or as the row says, share {{.Env.Cores}} cores of {{.Env.CPU}} with their load. Linux {{.Env.Kernel}}, {{.Env.Go}},
Nginx {{.Env.Nginx}}, Redis {{.Env.Redis}}, PostgreSQL {{.Env.Postgres}}.
`))

// experiments is the highest number in the table.
const experiments = 27

// report prints the table. It also writes it to loadtest/results if every experiment was asked for
// and all promises held.
func report(stdout io.Writer, held bool) error {
	env, err := fleet.ReadEnvironment(context.Background())
	if err != nil {
		return err
	}
	slices.SortStableFunc(rows.all, func(a, b row) int { return cmp.Compare(a.Number, b.Number) })
	var text bytes.Buffer
	if err := table.Execute(&text, map[string]any{"Env": env, "Rows": rows.all}); err != nil {
		return err
	}
	if _, err := stdout.Write(text.Bytes()); err != nil {
		return err
	}
	if chosen := flag.Lookup("test.run").Value.String() + flag.Lookup("test.skip").Value.String(); chosen != "" || !held {
		fmt.Fprintln(stdout, "This is not kept: an experiment failed, or not all were run.")
		return nil
	}
	for n := range experiments {
		if !slices.ContainsFunc(rows.all, func(r row) bool { return r.Number == n+1 }) {
			return fmt.Errorf("experiment %d left no row", n+1)
		}
	}
	return os.WriteFile(filepath.Join(env.Root, "loadtest", "results", "faults.md"), text.Bytes(), 0o644)
}
