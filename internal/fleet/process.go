package fleet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Process is one program of the fleet, stopped or running. It is for one goroutine at a time.
type Process struct {
	name  string
	args  []string // the program first
	env   []string // and PATH: nothing else of our own environment leaks in
	dir   string   // working directory, and where its log is
	ready func(context.Context) error

	// orphaned is the signal that it gets if we die without stopping it. Linux sends it when the
	// thread that started the process ends, which for a Go program is when the program does.
	orphaned syscall.Signal
	stop     syscall.Signal      // which ends it in order; 0 means SIGTERM
	user     *syscall.Credential // as whom it runs; nil for whoever we are
	// mute drops what it prints on standard output and keeps standard error.
	mute bool

	cmd    *exec.Cmd
	exited chan struct{} // closed once the process is gone and waited for
}

// Start starts the process and returns when it is ready to work. It is an error if the process is
// running already.
func (p *Process) Start(ctx context.Context) error {
	if p.Running() {
		return fmt.Errorf("%s is running already", p.name)
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Dir, cmd.Stderr = p.dir, log
	if !p.mute {
		cmd.Stdout = log
	}
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // Ctrl-C reaches us alone: we stop the fleet in order
		Pdeathsig: p.orphaned, Credential: p.user,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() {
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(exited)
	}()

	if err := p.waitReady(ctx); err != nil {
		err = fmt.Errorf("%s: %w\n%s", p.name, err, p.logTail(20))
		p.Kill()
		return err
	}
	return nil
}

// waitReady polls until the process is ready, has ended, or ctx ends.
func (p *Process) waitReady(ctx context.Context) error {
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("ended before it was ready: %s", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Running reports whether the process was started and has not ended since. A paused process counts
// as running.
func (p *Process) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Kill ends the process and its children as kill -9 does, and returns when they are gone.
func (p *Process) Kill() {
	if !p.Running() {
		return
	}
	for _, m := range p.signalAll(syscall.SIGKILL) {
		for stateOf(m.pid) != 0 {
			time.Sleep(time.Millisecond)
		}
	}
	<-p.exited
}

// Stop asks the process to end in order (SIGTERM) and returns when it has. An exit status other than 0 is an
// error. When ctx ends first the process is killed, which is an error too.
func (p *Process) Stop(ctx context.Context) error {
	if !p.Running() {
		return nil
	}
	p.signal(cmp.Or(p.stop, syscall.SIGTERM))
	p.Resume() // a paused process would not hear of it
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not stop in time and was killed", p.name)
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s stopped badly: %s\n%s", p.name, p.cmd.ProcessState, p.logTail(20))
	}
	return nil
}

// Pause freezes the process (SIGSTOP): its connections stay open and nothing answers on them. It
// returns when every process of it has stopped.
func (p *Process) Pause() {
	for p.Running() {
		p.signalAll(syscall.SIGSTOP)
		members, err := p.group()
		if err == nil && !slices.ContainsFunc(members, func(m member) bool { return m.state != 'T' && m.state != 'Z' }) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Resume lets a paused process go on.
func (p *Process) Resume() { p.signalAll(syscall.SIGCONT) }

// Hangup asks the process to read its files again (SIGHUP). It does not wait.
func (p *Process) Hangup() { p.signal(syscall.SIGHUP) }

// signal reaches the whole process group, which for Nginx is the master and its workers.
func (p *Process) signal(s syscall.Signal) {
	if p.Running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // fails only if no process is left
	}
}

// signalAll reaches also children that have left the group, as those of PostgreSQL have. It returns
// all that there were.
func (p *Process) signalAll(s syscall.Signal) []member {
	members, _ := p.group() // without /proc there would be no fleet
	p.signal(s)
	for _, m := range members {
		_ = syscall.Kill(m.pid, s) // it may have ended
	}
	return members
}

// CPU is the processor time that the process and its children have used, to the hundredth of a
// second that Linux counts in.
func (p *Process) CPU() (time.Duration, error) {
	if !p.Running() {
		return 0, fmt.Errorf("%s is not running", p.name)
	}
	var ticks int
	members, err := p.group()
	for _, m := range members {
		ticks += m.ticks
	}
	return time.Duration(ticks) * time.Second / 100, err
}

// Memory returns the resident memory of the process now, and its peak since it started or since
// ForgetPeak, in bytes.
func (p *Process) Memory() (now, peak int, err error) {
	if !p.Running() {
		return 0, 0, fmt.Errorf("%s is not running", p.name)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kB int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kB); err == nil {
			now = kB << 10
		} else if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kB); err == nil {
			peak = kB << 10
		}
	}
	if now == 0 || peak == 0 {
		err = fmt.Errorf("the memory of %s is not in its status", p.name)
	}
	return now, peak, err
}

// ForgetPeak makes the memory of now the peak.
func (p *Process) ForgetPeak() error {
	if !p.Running() {
		return fmt.Errorf("%s is not running", p.name)
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}

type member struct {
	pid   int
	state byte // as in proc(5): R, S, T and so on
	ticks int
}

// stateOf returns the state of a process, or 0 if it has ended.
func stateOf(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, ok := bytes.Cut(stat, []byte(") "))
	if err != nil || !ok || after[0] == 'Z' {
		return 0
	}
	return after[0]
}

// group lists the processes of p's group, and its children in others, from /proc.
func (p *Process) group() ([]member, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var members []member
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it ended since
		}
		// pid (name) state ppid pgrp ...: the name may hold spaces and brackets.
		after := bytes.LastIndexByte(stat, ')')
		field := bytes.Fields(stat[after+1:])
		if len(field) < 13 {
			return nil, fmt.Errorf("%s: %q is not understood", file, stat)
		}
		if own := strconv.Itoa(p.cmd.Process.Pid); string(field[1]) != own && string(field[2]) != own {
			continue
		}
		pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		user, err2 := strconv.Atoi(string(field[11]))
		system, err3 := strconv.Atoi(string(field[12]))
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		members = append(members, member{pid, field[0][0], user + system})
	}
	return members, nil
}

func (p *Process) logFile() string { return filepath.Join(p.dir, p.name+".log") }

// logTail returns the last lines that the process printed, for an error message.
func (p *Process) logTail(lines int) string {
	log, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
