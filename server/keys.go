package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"snowlink/internal/apikey"
)

// readKeysFile reads API_KEYS_FILE. Its error names the file, each wrong line and the rule that the
// line breaks.
func readKeysFile(path string) ([]apikey.Key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("API_KEYS_FILE: %w", err)
	}
	keys, err := apikey.ParseFile(string(text))
	if err != nil {
		return nil, fmt.Errorf("API_KEYS_FILE: %s:\n%w", path, err)
	}
	return keys, nil
}

// rereadKeys reads API_KEYS_FILE again. A file that is wrong changes nothing. A file without keys lets
// nobody in, which may be what the operator wants.
func rereadKeys(path string, keys *apikey.Keys, log *slog.Logger) {
	named, err := readKeysFile(path)
	if err != nil {
		log.Error("the keys file is wrong and was ignored: the keys read before stay", "err", err)
		return
	}
	keys.SetNamed(named)
	log.Info("keys read again", "file", path, "keys", len(named))
}

const keyUsage = `usage: server key NAME [-scopes create,read] [-rate 100/s]

Makes an API key. It prints the line for API_KEYS_FILE on standard output and the
secret, which is kept nowhere, on standard error:

  server key shop -rate 100/s >> keys
  kill -HUP PID     # every backend reads API_KEYS_FILE again

A rate counts requests: a bulk of 10,000 links is one, and so is an import.

`

// mintKey prints a new key as args describe it. The line for API_KEYS_FILE goes to stdout, which
// may be that file. The secret goes to stderr, so that it does not end up in the file.
func mintKey(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("key", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run says what is wrong
	scopes := flags.String("scopes", "create,read", "what the key may do: one or more of `create,manage,read,admin`; admin extends manage and read to the links of others")
	rate := flags.String("rate", "", "how often, over all backends: `100/s`, /m or /h (default no limit)")
	usage := func() {
		fmt.Fprint(stdout, keyUsage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
	}
	name := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		usage()
		return nil
	} else if err != nil {
		return fmt.Errorf("key: %w; see: server key -h", err)
	}
	if name == "" || flags.NArg() > 0 {
		return errors.New("key: it takes one name, before the flags; see: server key -h")
	}

	key, secret, err := apikey.Mint(name, *scopes, *rate)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	fmt.Fprintf(stderr, "The secret of %s, to give away; it is shown only now:\n\n  %s\n\nThe line for API_KEYS_FILE, on standard output:\n\n", key.Name, secret)
	fmt.Fprintln(stdout, key)
	return nil
}
