package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Flags that refuse a wrong value while they are parsed, so that the error names the flag.

// numberVar declares a flag for a whole number of least or more. Its default may be less.
func numberVar(flags *flag.FlagSet, into *int, least int, name string, value int, usage string) {
	*into = value
	flags.Var(number{into, least}, name, usage)
}

type number struct {
	into  *int
	least int
}

func (n number) Set(s string) (err error) {
	*n.into, err = parseNumber(s, n.least)
	return err
}

func (n number) String() string {
	if n.into == nil { // the flag package asks a zero number whether a default is worth a mention
		return "0"
	}
	return strconv.Itoa(*n.into)
}

func parseNumber(s string, least int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least {
		return 0, fmt.Errorf("it takes a number of %d or more", least)
	}
	return n, nil
}

// secondsVar declares a flag for the duration of a run: wrk takes whole seconds only.
func secondsVar(flags *flag.FlagSet, into *time.Duration, name string, value time.Duration, usage string) {
	*into = value
	flags.Var((*wholeSeconds)(into), name, usage)
}

type wholeSeconds time.Duration

func (d *wholeSeconds) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v < time.Second || v%time.Second != 0 {
		return errors.New("it takes whole seconds, as 10s")
	}
	*d = wholeSeconds(v)
	return nil
}

func (d *wholeSeconds) String() string { return time.Duration(*d).String() }

// numbers is a flag for numbers of 1 or more, as 16,64,256.
type numbers []int

func (l *numbers) Set(s string) error {
	*l = nil
	for part := range strings.SplitSeq(s, ",") {
		n, err := parseNumber(part, 1)
		if err != nil {
			return err
		}
		*l = append(*l, n)
	}
	return nil
}

func (l *numbers) String() string {
	var parts []string
	for _, n := range *l {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, ",")
}

// indent makes the later lines of a text begin after so many spaces.
func indent(text string, spaces int) string {
	return strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", spaces))
}
