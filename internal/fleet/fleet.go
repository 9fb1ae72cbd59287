// Package fleet starts a real Snowlink fleet on this machine and stops it: a redis-server, any
// number of backends, Nginx, and PostgreSQL if there is to be an archive, each with the project's own configuration, on loopback addresses
// and free ports. Tests, load tests and fault experiments use it, so that they see what Compose
// runs, without containers.
//
// Its decision: nothing is imitated. If a fleet needs another address, only that line of the
// configuration is rewritten. The package needs Linux: for /proc, for the addresses of 127.0.0.0/8,
// and to end the fleet when its parent dies.
package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options say how a fleet differs from the usual one: three backends behind Nginx over one Redis.
// The zero value is the usual one.
type Options struct {
	// Backends is how many there are; 0 means three.
	Backends int
	// Binary is the program that runs as a backend. It is configured by its environment (LISTEN,
	// NODE_ID and so on) and must answer /healthz. Empty means: build the server of this module.
	Binary string
	// Env is added to the environment of every backend, as "SHUTDOWN_GRACE=1s". It wins over what
	// the fleet sets itself.
	Env []string
	// Cluster makes Redis a Cluster of six: three masters with a replica each.
	Cluster bool
	// RedisProgram is run instead of the redis-server that is installed.
	RedisProgram string
	// RedisConfig is added to the project's redis.conf, as "maxmemory 64mb".
	RedisConfig []string
	// RedisVia takes the address of Redis and returns the one that the backends connect to, such as
	// that of a proxy. Nil means Redis itself.
	RedisVia func(addr string) (string, error)
	// Sentinel runs three Redis, a master and two replicas, and three Sentinels in place of the one
	// Redis. RedisConfig is for all three; RedisVia is not used.
	Sentinel bool
	// Archive is how many PostgreSQL there are behind Redis, each a shard of the archive. Redis then
	// evicts by volatile-lru, and another Redis keeps what is no link. 0 means that there is no
	// archive.
	Archive int
	// State runs another Redis for what is no link, as an archive does.
	State bool
	// ArchiveDir is the folder for their data, such as that of a small disk; empty means the fleet's.
	ArchiveDir string
	// ArchiveData is a folder that PostgreSQL.Init has made, to begin with copies of it. Empty means:
	// make one, which takes a second.
	ArchiveData string
	// AccessLog keeps Nginx's access log, in nginx.log: gigabytes, under load.
	AccessLog bool
	// NoRedis, NoBackends and NoNginx leave programs out.
	NoRedis, NoBackends, NoNginx bool
	// Upstreams are the addresses of servers that run already. Nginx has them in place of backends;
	// no backend and no Redis is started.
	Upstreams []string
}

// A Fleet is running from Start until Close.
type Fleet struct {
	URL      string // of Nginx, or of the first backend without one; no slash at the end
	APIKey   string // which every backend accepts
	Backends []*Backend
	Redis    *Redis      // nil where there is none, or more than one
	State    *Redis      // of what is no link; nil without Options.Archive and Options.State
	Sentinel *Sentinel   // nil without Options.Sentinel
	Cluster  Cluster     // empty without Options.Cluster
	Archive  []*Postgres // empty without Options.Archive
	Nginx    *Nginx      // nil where there is none

	// Dir holds the programs' logs, as backend1.log, until Close removes it.
	Dir string

	host     string       // which everything listens on
	claim    net.Listener // of the host
	addrs    []string     // given away
	redisURL string       // empty where there is no Redis
}

// A Backend is one backend of a fleet. Started again, it keeps its addresses and its node ID.
type Backend struct {
	Process
	URL        string // of the backend itself, past Nginx
	MetricsURL string // of its /metrics

	edgeLog string // where the edge cache may report to it
}

// Command is the backend's program with other arguments, as "archive", "verify", and with the same
// environment.
func (b *Backend) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.args[0], args...)
	cmd.Env = b.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Setenv adds to the environment that the backend has when it is started again, as
// "SHUTDOWN_GRACE=1s". It wins over what was there before.
func (b *Backend) Setenv(entry string) { b.env = append(b.env, entry) }

// Redis is the redis-server of a fleet. Started again, it has what its append-only file holds.
type Redis struct {
	Process
	Addr string // host:port
	Data string // the folder of its append-only file, if RedisConfig has no other
	bus  string // port of a Cluster's own connections
}

// MissingError is what Start returns when a program is not installed.
type MissingError struct{ Program string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not installed: `make tools` installs what load tests need", e.Program)
}

// LookPath finds a program. It returns a *MissingError when there is none.
func LookPath(program string) (string, error) {
	// Debian keeps Nginx where an ordinary user's PATH does not lead.
	for _, name := range []string{program, "/usr/sbin/" + program, "/usr/local/sbin/" + program} {
		if found, err := exec.LookPath(name); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", &MissingError{program}
}

// Build compiles a main package of this module, named by its import path, into dir and returns the
// program's file.
func Build(ctx context.Context, dir, pkg string) (string, error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, path.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return binary, nil
}

// ModuleRoot returns the folder of go.mod, which holds nginx/, redis/ and loadtest/.
func ModuleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "snowlink").Output()
	if err != nil {
		return "", fmt.Errorf("find the module (run this inside it): %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// startTime is the longest a program may take to be ready.
const startTime = 20 * time.Second

// Start starts a fleet and returns when all of it is ready. ctx bounds only the start. If a program
// fails, Start stops what it has started, and the error ends with the log of that program.
func Start(ctx context.Context, o Options) (_ *Fleet, err error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return nil, err
	}
	f := &Fleet{APIKey: rand.Text()}
	defer func() {
		if err != nil {
			_ = f.Close() // err has already said what is wrong
		}
	}()
	if f.host, f.claim, err = claimHost(); err != nil {
		return nil, err
	}
	if f.Dir, err = os.MkdirTemp("", "snowlink-fleet-"); err != nil {
		return nil, err
	}
	// Started by root, Nginx works as nobody and must get at its files.
	if err := os.Chmod(f.Dir, 0o711); err != nil {
		return nil, err
	}

	upstreams := o.Upstreams
	if len(upstreams) == 0 && !o.NoRedis {
		if o.Archive > 0 {
			o.RedisConfig = slices.Concat([]string{"maxmemory-policy volatile-lru"}, o.RedisConfig)
		}
		if err := f.newStore(root, o); err != nil {
			return nil, err
		}
	}
	if o.Archive > 0 || o.State {
		if f.State, err = f.newRedisOf(filepath.Join(root, "redis", "state.conf"), "state", nil); err != nil {
			return nil, err
		}
	}
	if o.Archive > 0 {
		if err := f.newArchive(ctx, o); err != nil {
			return nil, err
		}
	}
	if len(upstreams) == 0 && !o.NoBackends {
		if o.Binary == "" {
			if o.Binary, err = Build(ctx, f.Dir, "snowlink/server"); err != nil {
				return nil, err
			}
		}
		if err := f.newBackends(o); err != nil {
			return nil, err
		}
		for _, b := range f.Backends {
			upstreams = append(upstreams, strings.TrimPrefix(b.URL, "http://"))
		}
		f.URL = f.Backends[0].URL
	}
	if !o.NoNginx {
		if err := f.newNginx(root, upstreams, o.AccessLog); err != nil {
			return nil, err
		}
		f.URL = f.Nginx.url
	}
	for _, b := range f.Backends { // f.URL is known only now
		b.env = append([]string{"BASE_URL=" + f.URL}, b.env...)
	}
	return f, f.start(ctx)
}

func (f *Fleet) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for _, r := range []*Redis{f.Redis, f.State} {
		if r == nil {
			continue
		}
		if err := r.Start(ctx); err != nil {
			return err
		}
	}
	if f.Sentinel != nil {
		if err := f.Sentinel.start(ctx); err != nil {
			return err
		}
	}
	if err := f.Cluster.start(ctx); err != nil {
		return err
	}
	if err := f.startArchive(ctx); err != nil {
		return err
	}
	for _, b := range f.Backends {
		if err := b.Start(ctx); err != nil {
			return err
		}
	}
	if f.Nginx != nil {
		return f.Nginx.Start(ctx)
	}
	return nil
}

// Close stops the fleet and removes its files. An error says which program did not stop as it
// should.
func (f *Fleet) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	var errs []error
	if f.Nginx != nil {
		errs = append(errs, f.Nginx.Stop(ctx))
	}
	for _, b := range f.Backends {
		errs = append(errs, b.Stop(ctx))
	}
	for _, r := range []*Redis{f.Redis, f.State} {
		if r != nil {
			errs = append(errs, r.Stop(ctx))
		}
	}
	if f.Sentinel != nil {
		errs = append(errs, f.Sentinel.stop(ctx))
	}
	for _, r := range f.Cluster {
		errs = append(errs, r.Stop(ctx))
	}
	for _, db := range f.Archive {
		errs = append(errs, db.Stop(ctx))
	}
	if f.claim != nil {
		errs = append(errs, f.claim.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(f.Dir))...)
}

// Logs returns the last lines of every program's log.
func (f *Fleet) Logs(lines int) string {
	var b strings.Builder
	add := func(p *Process) { fmt.Fprintf(&b, "== %s\n%s\n", p.name, p.logTail(lines)) }
	for _, r := range []*Redis{f.Redis, f.State} {
		if r != nil {
			add(&r.Process)
		}
	}
	if f.Sentinel != nil {
		for _, p := range f.Sentinel.processes() {
			add(p)
		}
	}
	for _, r := range f.Cluster {
		add(&r.Process)
	}
	for _, db := range f.Archive {
		add(&db.Process)
	}
	for _, backend := range f.Backends {
		add(&backend.Process)
	}
	if f.Nginx != nil {
		add(&f.Nginx.Process)
	}
	return b.String()
}

// newStore makes what holds the links, and its URL for the backends.
func (f *Fleet) newStore(root string, o Options) (err error) {
	if o.Sentinel {
		f.Sentinel, err = f.newSentinel(root, o.RedisConfig)
		if err == nil {
			f.redisURL = f.Sentinel.URL()
		}
		return err
	}
	if o.Cluster {
		err = f.newCluster(root, o.RedisConfig)
		if err == nil {
			f.redisURL = f.Cluster.URL()
		}
		return err
	}
	if f.Redis, err = f.newRedis(root, "redis", o.RedisConfig...); err != nil {
		return err
	}
	if o.RedisProgram != "" {
		f.Redis.args[0] = o.RedisProgram
	}
	addr := f.Redis.Addr
	if o.RedisVia != nil {
		addr, err = o.RedisVia(addr)
	}
	f.redisURL = "redis://" + addr
	return err
}

// RedisURL is what the backends have as REDIS_URL; empty where there is no Redis.
func (f *Fleet) RedisURL() string { return f.redisURL }

// newRedis makes a redis-server with the project's configuration and extra lines of it.
func (f *Fleet) newRedis(root, name string, extra ...string) (*Redis, error) {
	return f.newRedisOf(filepath.Join(root, "redis", "redis.conf"), name, extra)
}

// newRedisOf makes a redis-server with a file of configuration and extra lines of it.
func (f *Fleet) newRedisOf(file, name string, extra []string) (*Redis, error) {
	program, err := LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	addr, err := f.freeAddr()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(f.Dir, name)
	if err := os.Mkdir(data, 0o755); err != nil {
		return nil, err
	}
	lines := append([]string{
		"include " + file,
		"bind " + f.host,
		"port " + port(addr),
		"dir " + data,
	}, extra...)
	conf := filepath.Join(f.Dir, name+".conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	r := &Redis{Addr: addr, Data: data}
	r.Process = Process{
		name: name, dir: f.Dir, orphaned: syscall.SIGKILL,
		args:  []string{program, conf},
		ready: r.ping,
	}
	return r, nil
}

// Client makes a client, which the caller closes.
func (r *Redis) Client() *redis.Client { return redis.NewClient(&redis.Options{Addr: r.Addr}) }

// Info returns a number of Redis's INFO.
func Info(ctx context.Context, client *redis.Client, section, field string) (int, error) {
	text, err := client.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	_, value, ok := strings.Cut(text, "\r\n"+field+":")
	value, _, _ = strings.Cut(value, "\r\n")
	n, err := strconv.Atoi(value)
	if !ok || err != nil {
		return 0, fmt.Errorf("INFO %s has %s:%q", section, field, value)
	}
	return n, nil
}

// ping succeeds once Redis has read its data and answers commands.
func (r *Redis) ping(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err == nil && !strings.HasPrefix(string(answer[:n]), "+PONG") {
		err = fmt.Errorf("answered %q", answer[:n])
	}
	return err
}

func (f *Fleet) newBackends(o Options) error {
	if o.Backends == 0 {
		o.Backends = 3
	}
	for i := range o.Backends {
		listen, err1 := f.freeAddr()
		metrics, err2 := f.freeAddr()
		edgeLog, err3 := f.freeAddr() // no other fleet has the host, and so not this UDP port either
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		env := []string{
			"LISTEN=" + listen,
			"METRICS_LISTEN=" + metrics,
			"EDGE_LOG_LISTEN=" + edgeLog,
			"API_KEY=" + f.APIKey,
			fmt.Sprintf("NODE_ID=%d", i+1),
		}
		if f.redisURL != "" {
			env = append(env, "REDIS_URL="+f.redisURL)
		}
		if len(f.Archive) > 0 {
			env = append(env, "ARCHIVE_URL="+f.ArchiveURL())
		}
		if f.State != nil {
			env = append(env, "REDIS_STATE_URL=redis://"+f.State.Addr)
		}
		b := &Backend{URL: "http://" + listen, MetricsURL: "http://" + metrics + "/metrics", edgeLog: edgeLog}
		b.Process = Process{
			name: fmt.Sprintf("backend%d", i+1), dir: f.Dir, orphaned: syscall.SIGKILL,
			args:  []string{o.Binary},
			env:   append(env, o.Env...),
			ready: func(ctx context.Context) error { return getOK(ctx, b.URL+"/healthz") },
		}
		f.Backends = append(f.Backends, b)
	}
	return nil
}

// claimPort is a port that a fleet listens on, without ever answering, to have an address for
// itself. It lies below every range of ports that clients connect from.
const claimPort = "9999"

// claimHost takes an address of 127.0.0.0/24 that no other fleet on this machine has, for as long
// as the claim is open. So a port that was free stays free: no other fleet listens there, and
// clients connect from 127.0.0.1.
func claimHost() (host string, claim net.Listener, err error) {
	for n := 10; n < 250; n++ {
		host = fmt.Sprintf("127.0.0.%d", n)
		if claim, err = net.Listen("tcp", net.JoinHostPort(host, claimPort)); err == nil {
			return host, claim, nil
		}
	}
	return "", nil, fmt.Errorf("no address for the fleet: %w", err)
}

// freeAddr returns an address that nothing listens on, and never the same twice.
func (f *Fleet) freeAddr() (string, error) {
	for {
		l, err := net.Listen("tcp", net.JoinHostPort(f.host, "0"))
		if err != nil {
			return "", err
		}
		addr := l.Addr().String()
		if err := l.Close(); err != nil {
			return "", err
		}
		if !slices.Contains(f.addrs, addr) {
			f.addrs = append(f.addrs, addr)
			return addr, nil
		}
	}
}

// port returns the port of an address.
func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// getOK succeeds when url answers 200.
func getOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
