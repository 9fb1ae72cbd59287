package link

import "strings"

// Most URLs are in the WHATWG serialisation already. The parser spends 12 µs and 240 allocations to
// return them unchanged, which is more than the rest of a create. isPlain recognises some of them
// in one pass. It may say no to any URL. It must say yes only if the parser would return the URL
// unchanged, and FuzzIsPlain tests that.

// These are the parts of a plain URL that a byte may be in.
const (
	inHost = 1 << iota
	inPath
	inQuery
	inFragment
)

var plainBytes = func() (table [256]uint8) {
	set := func(bytes string, parts uint8) {
		for i := range len(bytes) {
			table[bytes[i]] |= parts
		}
	}
	set("abcdefghijklmnopqrstuvwxyz0123456789-.", inHost|inPath|inQuery|inFragment)
	set("ABCDEFGHIJKLMNOPQRSTUVWXYZ_~!$&()*+,;=:@/%", inPath|inQuery|inFragment)
	set("'", inPath|inFragment) // a query has it percent-encoded
	set("?", inQuery|inFragment)
	return table
}()

// isPlain reports whether raw is a target as it is, and returns its host. It does not know of own
// hosts.
func isPlain(raw string) (host string, ok bool) {
	rest, ok := strings.CutPrefix(raw, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(raw, "http://"); !ok {
			return "", false
		}
	}
	if len(raw) > maxTarget {
		return "", false
	}
	// Without a path the parser would add one. With a port it might remove that, as the scheme's
	// own.
	slash := strings.IndexByte(rest, '/')
	if slash < 0 || !isPlainHost(rest[:slash]) {
		return "", false
	}
	part := uint8(inPath)
	for i := slash; i < len(rest); i++ {
		b := rest[i]
		switch {
		case plainBytes[b]&part == 0:
			switch {
			case b == '?' && part == inPath:
				part = inQuery
			case b == '#' && part != inFragment:
				part = inFragment
			default:
				return "", false
			}
		case b == '%':
			if len(rest)-i < 3 || !isHex(rest[i+1]) || !isHex(rest[i+2]) {
				return "", false
			}
			if part == inPath && rest[i+1] == '2' && rest[i+2]|0x20 == 'e' {
				return "", false // an encoded dot, which may be a segment "." or ".."
			}
		case b == '.' && part == inPath && rest[i-1] == '/':
			return "", false // the parser resolves "." and ".."
		}
	}
	return rest[:slash], true
}

// isPlainHost reports whether host is a domain name of lower-case letters, digits and single
// hyphens, and no parser takes its last label for a number.
func isPlainHost(host string) bool {
	const longest = 253 // RFC 1035, section 2.3.4
	if len(host) > longest {
		return false
	}
	label := 0 // where it starts
	for i := 0; i <= len(host); i++ {
		if i < len(host) && host[i] != '.' {
			if plainBytes[host[i]]&inHost == 0 || host[i] == '-' && (i == label || host[i-1] == '-') {
				return false
			}
			continue
		}
		if i == label || i-label > 63 || host[i-1] == '-' {
			return false
		}
		if i == len(host) {
			return 'a' <= host[label] && host[label] <= 'z'
		}
		label = i + 1
	}
	return false
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'f'
}
