package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"time"
)

const (
	defaultDuration = 4 * time.Second
	warmUp          = time.Second // before the first round, not counted
)

// defaultThreads leaves most of the machine to what is measured.
func defaultThreads() int { return max(1, runtime.NumCPU()/4) }

// measuring is what bench and growth have in common: how runs of wrk are made and where
// the figures go.
type measuring struct {
	duration time.Duration
	rounds   int
	threads  int
	output   output
}

func (m *measuring) define(flags *flag.FlagSet, to console, rounds int) {
	m.output = output{command: to.typed, progress: to.progress}
	flags.StringVar(&m.output.dir, "o", "", "`folder` to write results to")
	secondsVar(flags, &m.duration, "duration", defaultDuration, "`time` of each run, in whole seconds")
	numberVar(flags, &m.rounds, 1, "rounds", rounds, "`number` of rounds, in which everything runs once; the medians count")
	numberVar(flags, &m.threads, 1, "threads", defaultThreads(), "`number` of threads of wrk")
}

// A series is a load that runs again and again, and what came of it.
type series struct {
	name        string // for errors
	script      string
	connections int
	side        *side
	after       func(context.Context, result) error // called after each run; nil for nothing

	results []result // of each round, as used
	used    []cpu
}

// inTurns runs all series in turns, round by round, so that whatever else the machine does
// hits all alike. Each round begins with another one. A run of each comes first and does not
// count. ran is called after each run that counts.
func (m *measuring) inTurns(ctx context.Context, all []*series, ran func(i, round int)) error {
	for round := range m.rounds + 1 {
		duration := m.duration
		if round == 0 {
			duration = warmUp
		}
		for turn := range all {
			i := (round + turn) % len(all)
			s := all[i]
			r, used, err := s.side.run(ctx, load{script: s.script, threads: m.threads, connections: s.connections, duration: duration})
			if err == nil && s.after != nil {
				err = s.after(ctx, r)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round == 0 {
				continue
			}
			s.results, s.used = append(s.results, r), append(s.used, used)
			ran(i, round)
		}
	}
	return nil
}

// medians takes the median of each figure by itself.
func (s *series) medians() (result, cpu) {
	return result{
			PerSecond: medianOf(s.results, func(r result) float64 { return r.PerSecond }),
			P50:       medianOf(s.results, func(r result) time.Duration { return r.P50 }),
			P99:       medianOf(s.results, func(r result) time.Duration { return r.P99 }),
			P999:      medianOf(s.results, func(r result) time.Duration { return r.P999 }),
		}, cpu{
			Backends: medianOf(s.used, func(c cpu) float64 { return c.Backends }),
			Nginx:    medianOf(s.used, func(c cpu) float64 { return c.Nginx }),
			Redis:    medianOf(s.used, func(c cpu) float64 { return c.Redis }),
		}
}

func medianOf[T any, V float64 | time.Duration](all []T, figure func(T) V) V {
	var values []V
	for _, one := range all {
		values = append(values, figure(one))
	}
	return median(values)
}

// median is the middle value, or the higher of the two in the middle.
func median[T float64 | time.Duration](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
