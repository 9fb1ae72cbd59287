package faults_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// composition is the fleet of docker-compose.yml, under a project name of its own.
type composition struct {
	t       *testing.T
	project string
	root    string
	env     []string
	fleet   *fleet.Fleet // its addresses; its processes are Docker's
}

// compose starts the fleet of docker-compose.yml for the length of a test, with an image built from
// this tree. It takes a free port, and no more open files than this machine allows.
func compose(t *testing.T) *composition {
	t.Helper()
	root, err := fleet.ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	key := rand.Text()
	c := &composition{
		t: t, root: root, project: fmt.Sprintf("snowlink-faults-%d", os.Getpid()),
		env:   append(os.Environ(), "API_KEY="+key, "PORT="+port, fmt.Sprintf("NOFILE=%d", min(65536, files.Max))),
		fleet: &fleet.Fleet{URL: "http://127.0.0.1:" + port, APIKey: key},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.docker("compose", "logs", "--tail=20"))
		}
		c.docker("compose", "down", "--volumes", "--timeout=5")
	})
	c.docker("compose", "up", "--build", "--detach", "--wait")
	for n := range 3 {
		c.fleet.Backends = append(c.fleet.Backends, &fleet.Backend{})
		c.locate(n)
	}
	return c
}

// running returns the fleet; it is an argument of begin.
func (c *composition) running() *fleet.Fleet { return c.fleet }

// docker runs a command of Docker, which must succeed, and returns what it said.
func (c *composition) docker(args ...string) string {
	c.t.Helper()
	if args[0] == "compose" {
		args = append([]string{"compose", "--project-name", c.project}, args[1:]...)
	}
	cmd := exec.Command("docker", args...) // without the test's context, because it also cleans up
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = c.root, c.env, &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// locate finds the address of a backend's container, the nth from 0 on.
func (c *composition) locate(n int) (address string) {
	c.t.Helper()
	id := c.docker("compose", "ps", "--quiet", fmt.Sprintf("backend%d", n+1))
	address = c.docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id)
	b := c.fleet.Backends[n]
	b.URL, b.MetricsURL = "http://"+address+":8000", "http://"+address+":9100/metrics"
	return address
}

// TestCompose runs the experiments that need containers, or a newer Nginx than Debian's.
func TestCompose(t *testing.T) {
	const recreated, reloaded = "a backend's container recreated with another address (Compose)", "nginx -s reload, 30 times (Compose)"
	if !*long {
		t.Skip("it takes minutes: only with -long")
	}
	if out, err := exec.Command("docker", "compose", "ls").CombinedOutput(); err != nil { // it asks Compose and the daemon
		addSkipped(11, recreated, "no Docker here")
		addSkipped(3, reloaded, "no Docker here")
		t.Skipf("docker compose ls: %v\n%s", err, out)
	}
	c := compose(t)

	// Experiment 11.
	t.Run("recreated", func(t *testing.T) {
		x := begin(t, 11, recreated, c.running)
		x.wait(5 * time.Second)
		before := c.locate(1)
		c.docker("compose", "rm", "--stop", "--force", "backend2")
		// Docker would give the same address again.
		squatter := c.docker("run", "--detach", "--rm", "--network", c.project+"_default", "--ip", before,
			"--entrypoint", "sleep", "nginx:1.30-alpine", "600")
		t.Cleanup(func() { c.docker("kill", squatter) })
		c.docker("compose", "up", "--detach", "--no-deps", "backend2")
		began := time.Now()
		if after := c.locate(1); after == before {
			t.Fatalf("backend2 has the address %s again: this tests nothing", after)
		}
		x.awaitReady()
		fleettest.Eventually(t, 10*time.Second, "backend2 has its share of the redirects again", func() bool {
			_, text, err := do(t.Context(), newClient(t), http.MethodGet, x.fleet.Backends[1].MetricsURL, "", "")
			return err == nil && !strings.Contains(string(text), `snowlink_http_requests_total{class="3xx",route="redirect"} 0`)
		})
		x.fault += fmt.Sprintf(": traffic %s after its start", time.Since(began).Round(100*time.Millisecond))
		x.wait(30 * time.Second)
		o := x.finish()

		o.nothingLost(t)
		o.noneFailed(t, GETs...)
		o.noneFailed(t, create)
	})

	// Experiment 3. keepalive_min_timeout spares clients what TestNginxReload shows.
	t.Run("reload", func(t *testing.T) {
		workers := func() string { return c.docker("top", c.docker("compose", "ps", "--quiet", "nginx"), "-o", "pid") }
		before := workers()
		x := begin(t, 3, reloaded, c.running)
		for range 30 {
			x.wait(2 * time.Second)
			c.docker("compose", "kill", "--signal=HUP", "nginx")
		}
		x.wait(2 * time.Second)
		if workers() == before {
			t.Error("Nginx has the workers it had: this tested nothing")
		}
		o := x.finish()

		o.nothingLost(t)
		o.noneFailed(t, GETs...)
		o.noneFailed(t, create)
	})
}
