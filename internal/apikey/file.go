package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The rules of a line. An error repeats nothing of the line: somebody may have put a secret where
// the digest belongs.
var (
	errKeyFields = errors.New("a key is: NAME sha256:DIGEST scopes=create,manage,read rate=100/s, where rate= may be left out")
	errKeyName   = errors.New("a name has 1 to 64 letters, digits, dots, hyphens and underscores")
	errKeyDigest = errors.New("after the name comes sha256: and the SHA-256 of the secret as 64 hexadecimal digits")
	errKeyEmpty  = errors.New("this is the digest of an empty secret, which nobody can use")
	errKeyScopes = errors.New("scopes= takes one or more of create, manage, read and admin, comma-separated")
	errKeyRate   = fmt.Errorf("rate= takes a number from 1 to %d and a unit, as 100/s, 1000/m or 5000/h", maxRate)
)

const (
	maxKeyName = 64
	// maxRate is the largest number in a rate, whatever its unit. Redis keeps time in microseconds.
	maxRate = 1_000_000

	digestPrefix = "sha256:"
)

// Mint makes a key with a secret of 130 random bits. Name, scopes and rate are written as in a keys
// file. An empty rate means no limit.
func Mint(name, scopes, rate string) (key Key, secret string, err error) {
	if !IsName(name) {
		return Key{}, "", errKeyName
	}
	secret = rand.Text()
	key = Key{Name: name, Digest: sha256.Sum256([]byte(secret))}
	if key.Scopes, err = parseScopes(scopes); err != nil {
		return Key{}, "", err
	}
	if rate != "" {
		key.Rate, err = parseRate(rate)
	}
	return key, secret, err
}

// ParseFile reads the text of a keys file: one key a line, as Parse reads it. Blank lines and
// everything after a # are ignored. Keys of one name are one owner: to change its secret, add a
// line and remove the old one later. The error has one line for each wrong line. It has the number
// of that line and the rule that the line breaks, and nothing of its text.
func ParseFile(text string) ([]Key, error) {
	var keys []Key
	var wrong []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		key, err := Parse(line)
		if err == nil {
			err = fits(keys, key)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return keys, nil
}

// fits checks the key against the keys before it.
func fits(before []Key, key Key) error {
	if slices.ContainsFunc(before, func(k Key) bool { return k.Digest == key.Digest }) {
		return errors.New("this digest stands on a line above: each key has its own")
	}
	if slices.ContainsFunc(before, func(k Key) bool { return k.Name == key.Name && k.Rate != key.Rate }) {
		return errors.New("this name has another rate on a line above: keys of one name share one")
	}
	return nil
}

// Parse reads one key as String writes it:
//
//	NAME sha256:DIGEST scopes=create,manage,read rate=100/s
//
// Without a rate there is no limit.
func Parse(line string) (Key, error) {
	fields := strings.Fields(line)
	if len(fields) < 3 || len(fields) > 4 {
		return Key{}, errKeyFields
	}
	key := Key{Name: fields[0]}
	if !IsName(key.Name) {
		return Key{}, errKeyName
	}
	digest, ok := strings.CutPrefix(fields[1], digestPrefix)
	if n, err := hex.Decode(key.Digest[:], []byte(digest[:min(len(digest), 2*len(key.Digest))])); !ok || err != nil || n != len(key.Digest) || len(digest) != 2*n {
		return Key{}, errKeyDigest
	}
	if key.Digest == sha256.Sum256(nil) {
		return Key{}, errKeyEmpty
	}
	for _, field := range fields[2:] {
		name, value, _ := strings.Cut(field, "=")
		var err error
		switch {
		case name == "scopes" && key.Scopes == 0:
			key.Scopes, err = parseScopes(value)
		case name == "rate" && key.Rate == Rate{}:
			key.Rate, err = parseRate(value)
		default:
			err = errKeyFields
		}
		if err != nil {
			return Key{}, err
		}
	}
	if key.Scopes == 0 {
		return Key{}, errKeyFields
	}
	return key, nil
}

// String returns the key as a line of a keys file.
func (k Key) String() string {
	line := fmt.Sprintf("%s %s%x scopes=%s", k.Name, digestPrefix, k.Digest, k.Scopes)
	if k.Rate != (Rate{}) {
		line += " rate=" + k.Rate.String()
	}
	return line
}

// IsName reports whether s can be the name of a key. A name has only characters that need no escape in a
// Redis key or a log.
func IsName(s string) bool {
	return len(s) <= maxKeyName && s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_')
	})
}

func parseScopes(text string) (Scope, error) {
	var scopes Scope
	for name := range strings.SplitSeq(text, ",") {
		bit := slices.Index(scopeNames, name)
		if bit < 0 {
			return 0, errKeyScopes
		}
		scopes |= 1 << bit
	}
	return scopes, nil
}

func parseRate(text string) (Rate, error) {
	digits, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(digits, 10, 32)
	per, ok := rateUnits[unit]
	if err != nil || n < 1 || n > maxRate || !ok {
		return Rate{}, errKeyRate
	}
	return Rate{N: int(n), Per: per}, nil
}
