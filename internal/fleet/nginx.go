package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Nginx is the Nginx of a fleet. It runs from a copy of the project's nginx/, which a test may
// change before it reloads.
type Nginx struct {
	Process
	Conf string // the folder of nginx.conf

	url string
}

var (
	listenPort  = regexp.MustCompile(`(?m)^(\s*listen\s+)\d+`)
	syslogAddr  = regexp.MustCompile(`server=[^,]+,`)
	serverLines = regexp.MustCompile(`(?m)(?:^[ \t]*server\s+\S+(.*;)\n)+`) // $1: the options of the last
)

func (f *Fleet) newNginx(root string, upstreams []string, accessLog bool) error {
	program, err := LookPath("nginx")
	if err != nil {
		return err
	}
	addr, err := f.freeAddr()
	if err != nil {
		return err
	}

	conf := filepath.Join(f.Dir, "nginx")
	if err := os.CopyFS(conf, os.DirFS(filepath.Join(root, "nginx"))); err != nil {
		return err
	}
	serverConf := filepath.Join(conf, "conf.d", "server.conf")
	if err := rewrite(serverConf, serverConf, listenPort, "${1}"+addr); err != nil {
		return err
	}
	var servers strings.Builder
	for _, u := range upstreams {
		fmt.Fprintf(&servers, "    server %s${1}\n", u)
	}
	local, upstream := filepath.Join(conf, "upstreams", "local.conf"), filepath.Join(conf, "upstream.conf")
	if err := rewrite(local, upstream, serverLines, servers.String()); err != nil {
		return err
	}

	report, edgeLog := filepath.Join(conf, "edge-log", "local.conf"), filepath.Join(conf, "edge-log.conf")
	to := "server=127.0.0.1:9514,"
	if len(f.Backends) > 0 {
		to = "server=" + f.Backends[0].edgeLog + ","
	}
	if err := rewrite(report, edgeLog, syslogAddr, to); err != nil {
		return err
	}

	f.Nginx = &Nginx{Conf: conf, url: "http://" + addr}
	f.Nginx.Process = Process{
		name: "nginx", dir: f.Dir,
		orphaned: syscall.SIGTERM, // killed, the master would leave its workers behind
		mute:     !accessLog,
		args:     []string{program, "-p", f.Dir, "-c", filepath.Join(conf, "nginx.conf"), "-e", "stderr", "-g", "daemon off;"},
		ready:    func(ctx context.Context) error { return getOK(ctx, f.Nginx.url+"/ping") },
	}
	return nil
}

// rewrite writes the file from to the file to, with what re matches replaced as Regexp.Expand does
// it. No match is an error: the configuration is not what this package expects.
func rewrite(from, to string, re *regexp.Regexp, replacement string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if !re.Match(text) {
		return fmt.Errorf("%s has nothing that matches %s", from, re)
	}
	return os.WriteFile(to, re.ReplaceAll(text, []byte(replacement)), 0o644)
}

// Edit replaces old, which must be there, in a file of the configuration, named by its path below
// nginx/. Nginx reads it at the next Reload.
func (n *Nginx) Edit(file, old, new string) error {
	path := filepath.Join(n.Conf, file)
	return rewrite(path, path, regexp.MustCompile(regexp.QuoteMeta(old)), strings.ReplaceAll(new, "$", "$$"))
}

// Reload makes Nginx read its configuration again (SIGHUP) and returns when only its new workers
// run. If Nginx refuses the configuration, that is an error and the old one stays in use.
func (n *Nginx) Reload(ctx context.Context) error {
	before, err := n.group()
	if err != nil {
		return err
	}
	if err := syscall.Kill(n.cmd.Process.Pid, syscall.SIGHUP); err != nil {
		return err
	}
	for {
		now, err := n.group()
		if err != nil {
			return err
		}
		old := func(m member) bool {
			return m.pid != n.cmd.Process.Pid && slices.ContainsFunc(before, func(b member) bool { return b.pid == m.pid })
		}
		if len(now) > 1 && !slices.ContainsFunc(now, old) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reload nginx: %w\n%s", ctx.Err(), n.logTail(20))
		case <-time.After(5 * time.Millisecond):
		}
	}
}
