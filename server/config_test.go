package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"snowlink/docs"
)

// fields returns the fields of config that the environment sets.
func fields() (fields []reflect.StructField) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		if f.IsExported() {
			fields = append(fields, f)
		}
	}
	return fields
}

// defaults maps each variable that the server reads to its default, "" for none.
func defaults() map[string]string {
	d := make(map[string]string)
	for _, f := range fields() {
		d[f.Tag.Get("env")] = f.Tag.Get("envDefault")
	}
	return d
}

func TestEveryVariableIsDescribed(t *testing.T) {
	var described []string
	for _, v := range variables {
		described = append(described, v.name)
	}
	var read []string
	for _, f := range fields() {
		v := describe(f)
		read = append(read, v.name)
		if v.name == "" || v.about == "" || v.takes == "" {
			t.Errorf("%s: the field needs an env tag, and its entry in variables an about and a takes: %+v", f.Name, v)
		}
		if hasDefault := f.Tag.Get("envDefault") != ""; hasDefault == (v.unset != "") {
			t.Errorf("%s must have either an envDefault or, in variables, an unset", f.Name)
		}
	}
	if !slices.Equal(described, read) {
		t.Errorf("variables describes %q\nconfig reads %q", described, read)
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"help"}, nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > helpWidth+len("\n") {
			t.Errorf("this is longer than %d characters: %s", helpWidth, line)
		}
	}
	for name := range defaults() {
		if !regexp.MustCompile(`(?m)^  ` + name + `\b`).Match(out.Bytes()) {
			t.Errorf("help lacks %s:\n%s", name, &out)
		}
	}
}

func TestDocsConfiguration(t *testing.T) {
	var table strings.Builder
	table.WriteString("| variable | default | what it is |\n|---|---|---|\n")
	for _, f := range fields() {
		v := describe(f)
		byDefault := v.unset
		if value := f.Tag.Get("envDefault"); value != "" {
			byDefault = "`" + value + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s Takes %s. |\n", v.name, byDefault, v.about, v.takes)
	}
	docs.Made(t, "../docs/configuration.md", "variables", table.String())
}

// Compose and .env.example may name only what the server or Compose itself reads, and repeat no
// default that differs.
func TestComposeAndItsExampleAgree(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	compose, archive, kafka := read("../docker-compose.yml"), read("../deploy/compose/archive.yml"), read("../deploy/compose/kafka.yml")
	example := read("../.env.example")
	known := defaults()

	_, environment, _ := strings.Cut(compose, "x-backend-environment:")
	environment, _, _ = strings.Cut(environment, "\nservices:")
	for section, file := range map[string]string{"x-archive:": archive, "x-kafka:": kafka} {
		_, more, ok := strings.Cut(file, "\n"+section)
		more, _, _ = strings.Cut(more, "\n\n")
		if environment += more; !ok {
			t.Errorf("no file of Compose has %s", section)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  ([A-Z_]+):`).FindAllStringSubmatch(environment, -1) {
		if _, ok := known[m[1]]; !ok {
			t.Errorf("Compose sets %s, which the server does not read", m[1])
		}
	}

	interpolated := make(map[string]string) // to the default
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)(?::-((?:[^{}]|\{[^{}]*\})*))?`).FindAllStringSubmatch(compose+archive+kafka, -1) {
		if interpolated[m[1]] == "" {
			interpolated[m[1]] = regexp.MustCompile(`\$\{(\w+)[^}]*\}`).ReplaceAllString(m[2], "$$$1")
		}
	}
	entries := regexp.MustCompile(`(?m)((?:^# .*\n|^#\n)+)#([A-Z_]+)=`).FindAllStringSubmatch(example, -1)
	if len(entries) < 5 {
		t.Fatalf(".env.example has %d entries that this test can read", len(entries))
	}
	for _, entry := range entries {
		comment, name := entry[1], entry[2]
		if name == "COMPOSE_FILE" { // Compose itself reads it
			continue
		}
		byDefault, ok := interpolated[name]
		if !ok {
			t.Errorf(".env.example names %s, which Compose does not read", name)
		}
		if byDefault == "" {
			byDefault = known[name]
		} else if server := known[name]; server != "" && server != byDefault {
			t.Errorf("docker-compose.yml gives %s the default %s, and the server %s: leave it out there", name, byDefault, server)
		}
		if said := regexp.MustCompile(`\(default ([^ )]+)\)`).FindStringSubmatch(comment); said != nil && said[1] != byDefault {
			t.Errorf(".env.example says that the default of %s is %s; it is %s", name, said[1], byDefault)
		}
	}
	for name := range interpolated {
		if !slices.ContainsFunc(entries, func(e []string) bool { return e[2] == name }) {
			t.Errorf("Compose reads %s, which .env.example does not name", name)
		}
	}
}
