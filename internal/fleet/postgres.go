package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Postgres is a PostgreSQL of a fleet: one shard of its archive. Started again, it has all that it
// has acknowledged.
type Postgres struct {
	Process
	URL  string // of its database
	Data string // its folder
}

// newArchive makes the PostgreSQL of Options.Archive.
func (f *Fleet) newArchive(ctx context.Context, o Options) error {
	installed, err := FindPostgreSQL()
	if err != nil {
		return err
	}
	dir, data := o.ArchiveDir, o.ArchiveData
	if dir == "" {
		dir = f.Dir
	}
	for i := range o.Archive {
		db, err := f.newPostgres(installed, filepath.Join(dir, fmt.Sprintf("postgres%d", i+1)))
		if err != nil {
			return err
		}
		if data == "" {
			err, data = installed.Init(ctx, db.Data), db.Data
		} else {
			err = command(ctx, nil, "cp", "-a", data+"/.", db.Data)
		}
		if err != nil {
			return err
		}
		f.Archive = append(f.Archive, db)
	}
	return nil
}

func (f *Fleet) newPostgres(installed PostgreSQL, data string) (*Postgres, error) {
	addr, err := f.freeAddr()
	if err != nil {
		return nil, err
	}
	if err := installed.Mkdir(data); err != nil {
		return nil, err
	}
	db := &Postgres{URL: "postgres://postgres@" + addr + "/postgres?sslmode=disable", Data: data}
	db.Process = Process{
		name: filepath.Base(data), dir: f.Dir, user: installed.User,
		orphaned: syscall.SIGQUIT, // killed, it would leave its processes behind for a while
		stop:     syscall.SIGINT,  // SIGTERM waits for clients to disconnect
		args: []string{filepath.Join(installed.Bin, "postgres"), "-D", data, "-c", "port=" + port(addr),
			"-c", "listen_addresses=" + f.host, "-c", "unix_socket_directories="},
		ready: db.ping,
	}
	return db, nil
}

// ping succeeds once PostgreSQL has recovered and takes connections.
func (db *Postgres) ping(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, db.URL+"&connect_timeout=1")
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// ArchiveURL is what the backends have as ARCHIVE_URL; empty without an archive.
func (f *Fleet) ArchiveURL() string {
	var urls []string
	for _, db := range f.Archive {
		urls = append(urls, db.URL)
	}
	return strings.Join(urls, ",")
}

// GrowArchive adds a PostgreSQL to the archive and starts it. Backends that are started from now on
// have the longer ARCHIVE_URL, and look for links at their old homes too.
func (f *Fleet) GrowArchive(ctx context.Context) error {
	before := len(f.Archive)
	installed, err := FindPostgreSQL()
	if err != nil {
		return err
	}
	db, err := f.newPostgres(installed, filepath.Join(filepath.Dir(f.Archive[0].Data), fmt.Sprintf("postgres%d", before+1)))
	if err != nil {
		return err
	}
	if err := installed.Init(ctx, db.Data); err != nil {
		return err
	}
	if err := db.Start(ctx); err != nil {
		return err
	}
	f.Archive = append(f.Archive, db)
	for _, b := range f.Backends {
		b.Setenv("ARCHIVE_URL=" + f.ArchiveURL())
		b.Setenv(fmt.Sprintf("ARCHIVE_SHARDS_BEFORE=%d", before))
	}
	return nil
}

// startArchive starts every PostgreSQL that does not run.
func (f *Fleet) startArchive(ctx context.Context) error {
	var starts errgroup.Group
	for _, db := range f.Archive {
		if !db.Running() {
			starts.Go(func() error { return db.Start(ctx) })
		}
	}
	return starts.Wait()
}

// PostgreSQL is how PostgreSQL is installed on this machine.
type PostgreSQL struct {
	Bin  string              // the folder of its programs
	User *syscall.Credential // as whom it runs; nil for whoever we are. It refuses to run as root
}

// FindPostgreSQL finds the newest PostgreSQL of Debian's, or that of the PATH. It returns a
// *MissingError if there is none.
func FindPostgreSQL() (PostgreSQL, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	version := func(file string) int {
		n, _ := strconv.Atoi(strings.Split(file, "/")[4])
		return n
	}
	var p PostgreSQL
	if len(found) > 0 {
		p.Bin = filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
	} else if file, err := exec.LookPath("initdb"); err == nil {
		p.Bin = filepath.Dir(file)
	} else {
		return p, &MissingError{"postgresql"}
	}
	if os.Getuid() != 0 {
		return p, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return p, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	p.User = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return p, errors.Join(err1, err2)
}

// Mkdir makes a folder for PostgreSQL alone. One that is there already becomes its own.
func (p PostgreSQL) Mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if p.User == nil {
		return nil
	}
	return os.Chown(dir, int(p.User.Uid), int(p.User.Gid))
}

// Init makes the data of an empty PostgreSQL, whose user postgres needs no password, in a folder that
// it may write.
func (p PostgreSQL) Init(ctx context.Context, data string) error {
	return command(ctx, p.User, filepath.Join(p.Bin, "initdb"), "--pgdata", data, "--username=postgres", "--auth=trust",
		"--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
}

// command runs a program to its end. The error has what it printed.
func command(ctx context.Context, as *syscall.Credential, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, out)
	}
	return nil
}
