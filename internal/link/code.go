package link

import "strings"

const (
	minCode = 3
	// MaxCode is the length of the longest code, in characters.
	MaxCode = 64
)

// A CodeError says why a text cannot be the code of a link.
type CodeError struct {
	// Detail names the rule that the code breaks, in one sentence for whoever sent it.
	Detail string
}

func (e *CodeError) Error() string { return e.Detail }

// reserved are codes, in lower case, that the service has or may come to have a path for, or that browsers and robots
// ask every host for.
var reserved = map[string]bool{
	"about": true, "admin": true, "api": true, "apple-touch-icon": true, "assets": true, "bulk": true,
	"dashboard": true, "debug": true, "docs": true, "export": true, "favicon": true, "generate_url": true,
	"health": true, "healthz": true, "help": true, "import": true, "index": true, "links": true, "login": true,
	"logout": true, "metrics": true, "openapi": true, "ping": true, "preview": true, "privacy": true, "robots": true,
	"security": true, "sitemap": true, "static": true, "status": true, "terms": true, "well-known": true,
}

// ParseCode returns raw if its sender may choose it as the code of a link: 3 to 64 of A-Z, a-z, 0-9, hyphen and
// underscore, not a name that the service keeps for itself, in whatever case, and not of the shape of minted codes, so
// that no choice can ever stand where a code is minted. The error is a [*CodeError].
func ParseCode(raw string) (string, error) {
	if len(raw) < minCode || len(raw) > MaxCode {
		return "", &CodeError{"The code must have 3 to 64 characters."}
	}
	if MintedShape(raw) {
		return "", &CodeError{"A code of 10 or 11 letters and digits is kept for those that the service makes; add a hyphen, or a character."}
	}
	return ParseImported(raw)
}

// ParseImported returns raw if a link that comes from elsewhere may keep it as its code: as [ParseCode], but from one
// character on, as others number their links, and of the shape of minted codes too, as any word of ten letters is. One
// of them may be minted one day; the store takes no code twice, and then another is minted.
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

// CouldBeCode reports whether a link may have the code, minted, chosen or imported.
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

// MintedShape reports whether the code has the length and the alphabet of minted ones: of what package snowflake mints
// until 2032, and then.
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
