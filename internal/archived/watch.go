package archived

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"snowlink/internal/deadline"
	"snowlink/internal/postgres"
)

// LagMost is how old the oldest mark may be until the operator should attend to it.
const LagMost = time.Minute

const (
	// lookEvery is the time between two looks at the backlog, and checkEvery between two at the
	// databases.
	lookEvery  = time.Second
	checkEvery = 5 * time.Second
	// tendEvery is how often Tend looks for something to do. A Redis that lost writes may show what a
	// link was before, until it has been compared.
	tendEvery = 5 * time.Second
	// sweepEvery is the time between two sweeps by whoever it may be. What a sweep finds is archived
	// late, and not lost: Redis keeps it until then.
	sweepEvery = time.Hour
	// verifyClaim is how long a comparison is left to whoever died while making it.
	verifyClaim = time.Minute
)

// Lag is how old the oldest mark was that was not archived when Watch looked last.
func (a *Archiver) Lag() time.Duration { return time.Duration(a.behind.Load()) }

// Degraded says why the operator should attend to the archive, as of when Watch looked last, or
// returns "".
func (a *Archiver) Degraded() string {
	var reasons []string
	if amiss := a.amiss.Load(); amiss != nil && *amiss != "" {
		reasons = append(reasons, *amiss)
	}
	if lag := a.Lag(); lag > LagMost {
		reasons = append(reasons, fmt.Sprintf("archiving is %s behind", lag.Round(time.Second)))
	}
	return strings.Join(reasons, "; ")
}

// Watch looks at the backlog and at the databases until ctx ends, for Lag, Degraded and the gauges,
// and returns nil. It does so whoever archives. It also reminds a Redis that lost everything that it is
// in front of an archive, if it knew that before.
func (a *Archiver) Watch(ctx context.Context) error {
	knew := false
	for checked := (time.Time{}); ; {
		if knew {
			_ = a.hot.RememberArchive(ctx) // the next second repeats it
		} else {
			knew, _ = a.hot.RemembersArchive(ctx)
		}
		if n, since, err := a.hot.Backlog(ctx); err == nil { // otherwise an outage, which others log
			var lag time.Duration
			if n > 0 {
				lag = max(0, time.Since(since))
			}
			a.behind.Store(int64(lag))
			a.lag.Set(lag.Seconds())
			a.pending.Set(float64(n))
		}
		if time.Since(checked) >= checkEvery {
			checked = time.Now()
			amiss := strings.Join(a.check(ctx), "; ")
			a.amiss.Store(&amiss)
		}
		if !deadline.Sleep(ctx, lookEvery) {
			return nil
		}
	}
}

// check says what is wrong with databases.
func (a *Archiver) check(ctx context.Context) (amiss []string) {
	dbs := a.archive.shards.DBs()
	for i, db := range dbs {
		if err := db.Ping(ctx); err != nil && ctx.Err() == nil {
			amiss = append(amiss, fmt.Sprintf("archive shard %d of %d does not answer, so links that it alone has answer 503", i+1, len(dbs)))
		}
	}
	if len(amiss) == 0 {
		if err := a.archive.shards.Check(ctx); errors.Is(err, postgres.ErrShard) {
			amiss = append(amiss, err.Error())
		}
	}
	return amiss
}

// Tend does what has to be done now and then, until ctx ends, and returns nil: it sweeps, and it
// verifies after each start and failover of Redis, which may have lost writes. Of several that tend
// one Redis, one does each chore.
func (a *Archiver) Tend(ctx context.Context) error {
	for {
		_ = a.tend(ctx) // that failed in an outage, which others log; the next time repeats it
		if !deadline.Sleep(ctx, tendEvery) {
			return nil
		}
	}
}

func (a *Archiver) tend(ctx context.Context) error {
	is, verified, err := a.hot.Runs(ctx)
	if err != nil {
		return err
	}
	if is != verified && is != "" {
		const chore = "verify"
		ours, err := a.hot.Claim(ctx, chore, verifyClaim)
		if err != nil || !ours {
			return err
		}
		kept := time.Now()
		v, err := a.Verify(ctx, func(Verified) {
			if time.Since(kept) > verifyClaim/4 {
				kept = time.Now()
				a.hot.KeepClaim(ctx, chore, verifyClaim)
			}
		})
		if err != nil {
			return err
		}
		a.log.Info("redis was compared with the archive, since it was started or failed over",
			"links", v.Links, "same", v.Same, "pending", v.Pending, "differed", v.Wrong)
		return a.hot.SetVerified(ctx, is)
	}
	if ours, err := a.hot.Claim(ctx, "sweep", sweepEvery); err != nil || !ours {
		return err
	}
	_, err = a.Sweep(ctx, nil)
	return err
}
