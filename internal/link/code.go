package link

import (
	"strings"
	"time"
)

const (
	minCode = 3
	// MaxCode is the length of the longest code, in characters.
	MaxCode = 64
)

// A CodeError tells why a text cannot be the code of a link.
type CodeError struct {
	// Detail names the rule that the code breaks, in one sentence for the sender.
	Detail string
}

func (e *CodeError) Error() string { return e.Detail }

// reserved are codes, in lower case, that nobody may choose. The service has a path of that name,
// or may come to have one, or browsers and robots ask every host for it.
var reserved = map[string]bool{
	"about": true, "admin": true, "api": true, "apple-touch-icon": true, "assets": true, "bulk": true,
	"clicks": true, "codes": true, "dashboard": true, "debug": true, "docs": true, "export": true, "favicon": true, "generate_url": true,
	"health": true, "healthz": true, "help": true, "import": true, "index": true, "key": true, "links": true, "login": true,
	"logout": true, "metrics": true, "openapi": true, "ping": true, "preview": true, "privacy": true, "robots": true,
	"security": true, "service": true, "sitemap": true, "static": true, "status": true, "terms": true, "well-known": true,
}

// ParseCode returns raw if its sender may choose it as the code of a link. Such a code is 3 to 64
// of A-Z, a-z, 0-9, hyphen and underscore. It is not a name that the service keeps for itself, in
// upper or lower case. It does not have the shape of minted codes, so that no chosen code is ever
// one that is minted. The error is a [*CodeError].
func ParseCode(raw string) (string, error) {
	if len(raw) < minCode || len(raw) > MaxCode {
		return "", &CodeError{"The code must have 3 to 64 characters."}
	}
	if MintedShape(raw) {
		return "", &CodeError{"Codes of 10 or 11 letters and digits are kept for the service to make; add a hyphen or another character."}
	}
	return ParseImported(raw)
}

// ParseImported returns raw if a link that comes from elsewhere may keep it as its code. It is
// [ParseCode] with two exceptions. A code may have one character, since other services number their
// links. It may have the shape of minted codes, since any word of ten letters has. Such a code may
// be minted one day. The store takes no code twice, and then another one is minted.
func ParseImported(raw string) (string, error) {
	switch {
	case raw == "":
		return "", &CodeError{"The row has no code."}
	case len(raw) > MaxCode:
		return "", &CodeError{"The code must have 64 characters at most."}
	case !CouldBeCode(raw):
		return "", &CodeError{"The code may have letters A to Z and a to z, digits, hyphens and underscores only."}
	case reserved[strings.ToLower(raw)]:
		return "", &CodeError{"The code is a name that the service keeps for itself."}
	}
	return raw, nil
}

// CouldBeCode reports whether a link may have the code, be it minted, chosen or imported.
func CouldBeCode(code string) bool {
	if code == "" || len(code) > MaxCode {
		return false
	}
	for i := range len(code) {
		if b := code[i]; !isAlphanumeric(b) && b != '-' && b != '_' {
			return false
		}
	}
	return true
}

// MintedLately is how far the time in a code that is being minted may be from anyone's now: clocks
// differ, and a create takes its time.
const MintedLately = time.Minute

// MintedShape reports whether the code has the length and the alphabet of minted ones. Package
// snowflake mints 10 characters until 2032, and then 11.
func MintedShape(code string) bool {
	if len(code) != 10 && len(code) != 11 {
		return false
	}
	for i := range len(code) {
		if !isAlphanumeric(code[i]) {
			return false
		}
	}
	return true
}

func isAlphanumeric(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z' }
