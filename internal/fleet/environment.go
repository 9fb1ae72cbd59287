package fleet

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Environment is where a result was measured: without it a number says nothing.
type Environment struct {
	Date, Commit                       string
	CPU, Kernel, Go, Nginx, Redis, Wrk string
	Postgres                           string // "none" if it is not installed
	Cores                              int
	Root                               string // folder of the module
}

// ReadEnvironment asks the machine, the programs a fleet is made of, and git.
func ReadEnvironment(ctx context.Context) (Environment, error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return Environment{}, err
	}
	e := Environment{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Go: runtime.Version(), Cores: runtime.NumCPU(), Root: root,
		Commit: "unknown", CPU: "unknown CPU", Kernel: "unknown", Postgres: "none",
	}
	for program, args := range map[string]struct {
		arg  string
		into *string
	}{
		"nginx":        {"-v", &e.Nginx},
		"redis-server": {"--version", &e.Redis},
		"wrk":          {"-v", &e.Wrk},
	} {
		path, err := LookPath(program)
		if err != nil {
			return Environment{}, err
		}
		out, _ := exec.CommandContext(ctx, path, args.arg).CombinedOutput() // wrk -v exits with 1
		*args.into = version(string(out))
	}
	if installed, err := FindPostgreSQL(); err == nil {
		out, err := exec.CommandContext(ctx, filepath.Join(installed.Bin, "postgres"), "--version").Output()
		if err != nil {
			return Environment{}, err
		}
		e.Postgres = version(string(out))
	}
	if out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty").Output(); err == nil {
		e.Commit = strings.TrimSpace(string(out))
	}
	if out, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		e.Kernel = strings.TrimSpace(string(out))
	}
	if out, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(out), "model name\t: "); ok {
			e.CPU, _, _ = strings.Cut(after, "\n")
		}
	}
	return e, nil
}

// version returns the first word that has a digit and a dot, from its first digit on: 1.22.1 for
// "nginx version: nginx/1.22.1".
func version(out string) string {
	for word := range strings.FieldsSeq(out) {
		if i := strings.IndexAny(word, "0123456789"); i >= 0 && strings.Contains(word[i:], ".") {
			return word[i:]
		}
	}
	return "unknown"
}
