package link

import (
	"net/netip"
	neturl "net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	urlerrors "github.com/nlnwa/whatwg-url/errors"
	"github.com/nlnwa/whatwg-url/url"
)

const (
	// maxTarget is the length of the longest target, in bytes. Longer URLs are not portable among
	// browsers, proxies and the header buffers between them.
	maxTarget = 2048

	// maxAuthority is the length of the longest host and port as written, in bytes. It leaves room
	// for the longest domain name, 253 bytes, with every byte of it percent-encoded. The parser's
	// time grows with the square of the host's length: one host of 64 KiB took 3.4 s.
	maxAuthority = 1024

	// maxRaw is the length of the longest URL that is parsed at all. No honest URL shrinks to
	// maxTarget from more.
	maxRaw = 4 * maxTarget

	// maxHost and maxLabel are the lengths of the longest domain name and of its longest part
	// between two dots, in bytes (RFC 1035, section 2.3.4). A character that is not ASCII takes at
	// least one byte. The parser's time grows with the square of the length of a label: one of 341
	// different characters took 1.9 ms.
	maxHost  = 253
	maxLabel = 63
)

// A TargetError says why a URL cannot be a target.
type TargetError struct {
	// Detail names the rule that the URL breaks, in one sentence for whoever sent it. It repeats
	// nothing of the URL, which may hold secrets.
	Detail string
}

func (e *TargetError) Error() string { return e.Detail }

var (
	errNoHost  = &TargetError{"The URL has no host after http:// or https://."}
	errOwnHost = &TargetError{"The URL leads back to this service."}
	errTooLong = &TargetError{"The URL is longer than 2,048 bytes after normalisation."}

	errInvalidHost = &TargetError{"The URL's host is neither a valid domain name nor a valid IP address."}
	errHostTooLong = &TargetError{"The URL's host is too long: a domain name has at most 253 characters, and at most 63 between two dots."}
)

// ParseTarget returns the target that raw stands for: an absolute http or https URL with a host and
// without user name and password, of at most 2,048 bytes, in the WHATWG serialisation. That is what
// a browser makes of raw: lower-case scheme and host, Unicode hosts in Punycode, IP addresses in
// their usual form, no default port, "." and ".." resolved, percent-encoding where it is needed.
// The result is printable ASCII without spaces, and parsing it again returns it unchanged.
//
// Spaces around raw are ignored. ParseTarget is stricter than browsers where they guess at what was
// meant, or where a slip of the creator would go unseen: it refuses control characters and
// backslashes anywhere, and a scheme without exactly two slashes after it. It refuses URLs on the
// own hosts, which could lead a visitor in circles.
//
// The error is a [*TargetError].
func ParseTarget(raw string, own Hosts) (string, error) {
	if host, ok := isPlain(raw); ok {
		if own.ownsName(host) {
			return "", errOwnHost
		}
		return raw, nil
	}
	target, hostname, err := normalise(raw)
	if err != nil {
		return "", err
	}
	if len(target) > maxTarget {
		return "", errTooLong
	}
	if !isCanonical(target) {
		return "", &TargetError{"The URL's host cannot be written in a form that every browser reads alike."}
	}
	if own.owns(hostname) {
		return "", errOwnHost
	}
	return target, nil
}

// normalise returns the serialisation of what raw stands for, and its host. Its error is a
// [*TargetError].
func normalise(raw string) (target, hostname string, err error) {
	raw, authority, err := check(raw)
	if err != nil {
		return "", "", err
	}
	start := strings.Index(raw, "://") + len("://") + len(authority)
	u, err := parseChecked(raw[:start]+"/", authority)
	if err != nil {
		return "", "", err
	}
	origin := strings.TrimSuffix(u.Href(false), "/")
	return origin + normaliseRest(raw[start:]), u.Hostname(), nil
}

// normaliseRest returns what the parser makes of a URL after its authority: the path, the query and
// the fragment, each if it is there. The parser's time grows with the square of the number of
// segments, and a percent sign that encodes nothing costs it three allocations. FuzzRest holds the
// two to the same result.
func normaliseRest(rest string) string {
	rest, fragment, hasFragment := strings.Cut(rest, "#")
	path, query, hasQuery := strings.Cut(rest, "?")
	b := make([]byte, 0, len(rest)+len(fragment)+len("/?#"))
	for _, segment := range resolve(path) {
		b = appendEncoded(append(b, '/'), segment, pathEncodeSet)
	}
	if hasQuery {
		b = appendEncoded(append(b, '?'), query, url.SpecialQueryPercentEncodeSet)
	}
	if hasFragment {
		b = appendEncoded(append(b, '#'), fragment, url.FragmentPercentEncodeSet)
	}
	return string(b)
}

// resolve returns the segments of a path, which is empty or begins with a slash, without "." and
// "..".
func resolve(path string) []string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	kept := segments[:0]
	for i, segment := range segments {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		case ".":
		default:
			kept = append(kept, segment)
			continue
		}
		if i == len(segments)-1 { // a dot segment at the end leaves its slash
			kept = append(kept, "")
		}
	}
	return kept
}

// appendEncoded appends part of a URL with the bytes of the set percent-encoded.
func appendEncoded(b []byte, part string, set *url.PercentEncodeSet) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(part) {
		if c := part[i]; set.ByteShouldBeEncoded(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// originOf returns a serialised URL up to the slash that its path begins with.
func originOf(target string) string {
	start := strings.Index(target, "://") + len("://")
	return target[:start+strings.IndexByte(target[start:], '/')+1]
}

// Hosts are the hosts that the fleet itself is reached by. The zero Hosts has none.
type Hosts struct {
	host     string // as hostKey returns it
	loopback bool   // every name and address of the loopback is ours
}

// ParseBaseURL reads the URL that a fleet is reached at: http://host or https://host, with a port
// if need be, and nothing after it but a slash. It returns what short URLs begin with, in the
// WHATWG serialisation and without the slash, and the hosts that no target may lead to. Its error
// is a [*TargetError].
//
// A host counts as own on every port and in every spelling: upper case, trailing dots,
// percent-encoding, Unicode, and each way to write an IP address. If the base URL's host is the
// loopback, as in a local fleet, then so does every other name and address of the loopback, and the
// unspecified address.
func ParseBaseURL(raw string) (base string, own Hosts, err error) {
	u, err := parse(raw)
	if err != nil {
		return "", Hosts{}, err
	}
	base, ok := strings.CutSuffix(u.Href(false), "/")
	if !ok || strings.Count(base, "/") != 2 || strings.ContainsAny(base, "?#") || !isCanonical(base+"/") {
		return "", Hosts{}, &TargetError{"The URL must end after its host and port."}
	}
	host := hostKey(u.Hostname())
	return base, Hosts{host: host, loopback: isLoopbackAddr(host) || isLoopbackName(host)}, nil
}

func (h Hosts) owns(hostname string) bool {
	host := hostKey(hostname)
	return h.ownsName(host) || h.loopback && isLoopbackAddr(host)
}

// ownsName is owns for what can only be a domain name, in the form of hostKey.
func (h Hosts) ownsName(host string) bool {
	return host == h.host || h.loopback && isLoopbackName(host)
}

// hostKey returns the one form of a host, as the parser returns it, for comparison. It has no
// trailing dots, which name the same host, and an IPv4 address inside an IPv6 address is the IPv4
// address that is dialled for it.
func hostKey(hostname string) string {
	host := strings.TrimRight(strings.ToLower(hostname), ".")
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return addr.Unmap().String()
	}
	return host
}

// isLoopbackAddr reports whether a client on this machine that asks for the address reaches the
// machine itself. That includes the unspecified addresses, which the kernel connects to the
// loopback.
func isLoopbackAddr(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.IsLoopback() || addr.IsUnspecified())
}

// isLoopbackName reports whether host is one of the names that browsers never look up (RFC 6761,
// section 6.3).
func isLoopbackName(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// pathEncodeSet has one character that the standard encodes in paths and the library does not yet.
var pathEncodeSet = url.PathPercentEncodeSet.Set('^')

// parser follows the URL standard.
var parser = url.NewParser(url.WithPathPercentEncodeSet(pathEncodeSet))

// parse parses an http or https URL that has a host and neither user name nor password. Its error
// is a [*TargetError].
func parse(raw string) (*url.Url, error) {
	raw, authority, err := check(raw)
	if err != nil {
		return nil, err
	}
	return parseChecked(raw, authority)
}

// check finds what is wrong with a URL before it is parsed. It returns the URL without spaces
// around it, and what stands between its scheme and its path. Its error is a [*TargetError].
func check(raw string) (trimmed, authority string, err error) {
	raw = strings.Trim(raw, " ")
	if raw == "" {
		return "", "", &TargetError{"The URL is empty."}
	}
	if !utf8.ValidString(raw) {
		return "", "", &TargetError{"The URL is not valid UTF-8."}
	}
	// Browsers drop tabs and line breaks and read backslashes as slashes: what is seen is not what
	// is opened.
	if strings.ContainsFunc(raw, unicode.IsControl) {
		return "", "", &TargetError{"The URL contains a tab, a line break or another control character."}
	}
	if strings.Contains(raw, `\`) {
		return "", "", &TargetError{`The URL contains a backslash; write %5C if it is meant.`}
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", "", &TargetError{"The URL must start with http:// or https://."}
	}
	authority = rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	if authority == "" {
		return "", "", errNoHost
	}
	// Before parsing, because the parser's time grows with the square of a user name's length too.
	if strings.Contains(authority, "@") {
		return "", "", &TargetError{"The URL must not contain a user name or password."}
	}
	if len(authority) > maxAuthority {
		return "", "", errHostTooLong
	}
	encoded, _, _ := strings.Cut(authority, ":")
	host, err := neturl.PathUnescape(encoded)
	if err != nil {
		return "", "", errInvalidHost
	}
	if !isShortHost(host) {
		return "", "", errHostTooLong
	}

	if len(raw) > maxRaw {
		return "", "", errTooLong
	}
	return raw, authority, nil
}

// isShortHost reports whether a host is short enough for the DNS, by its characters. For a host in
// ASCII that is exact. A Unicode host may still be too long in Punycode.
func isShortHost(host string) bool {
	host = strings.TrimRight(host, dots)
	if utf8.RuneCountInString(host) > maxHost {
		return false
	}
	for label := range strings.FieldsFuncSeq(host, func(r rune) bool { return strings.ContainsRune(dots, r) }) {
		if utf8.RuneCountInString(label) > maxLabel {
			return false
		}
	}
	return true
}

// dots are the characters that separate the labels of a host (UTS #46, section 2.3).
const dots = ".\u3002\uff0e\uff61"

func parseChecked(raw, authority string) (*url.Url, error) {
	u, err := parser.Parse(raw)
	if err != nil {
		switch urlerrors.Type(err) {
		case urlerrors.HostMissing:
			return nil, errNoHost
		case urlerrors.PortInvalid, urlerrors.PortOutOfRange:
			return nil, &TargetError{"The URL's port is not a number from 0 to 65535."}
		}
		return nil, errInvalidHost
	}
	if strings.Trim(u.Hostname(), ".") == "" {
		return nil, errNoHost
	}
	if !isShortHost(u.Hostname()) { // now in Punycode
		return nil, errHostTooLong
	}
	// The parser takes signs in the parts of an IPv4 address, where the standard does not: it reads
	// the domain name "-5" as 255.255.255.251. A sign can be percent-encoded or fullwidth, so only
	// plain digits are taken.
	if host, _, _ := strings.Cut(authority, ":"); u.IsIPv4() && strings.Trim(host, "0123456789abcdefABCDEFxX.") != "" {
		return nil, &TargetError{"The URL's host is an IPv4 address that is not written in plain digits."}
	}
	return u, nil
}

// isCanonical reports whether the target, as the parser has written it, can stand in a header and
// reads back as itself. The library accepts some hosts, such as "a≠b", whose serialisation it then
// refuses. What follows the host needs no second look: each of its characters is encoded or not,
// whatever the others are.
func isCanonical(target string) bool {
	if strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	origin := originOf(target)
	u, err := parser.Parse(origin)
	return err == nil && u.Href(false) == origin
}
