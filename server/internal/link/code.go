package link

import "strings"

const (
	minCode = 3
	maxCode = 64
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
	if len(raw) < minCode || len(raw) > maxCode {
		return "", &CodeError{"The code must have 3 to 64 characters."}
	}
	alphanumeric := true
	for i := range len(raw) {
		switch b := raw[i]; {
		case '0' <= b && b <= '9', 'a' <= b|0x20 && b|0x20 <= 'z':
		case b == '-', b == '_':
			alphanumeric = false
		default:
			return "", &CodeError{"The code may have letters A to Z and a to z, digits, hyphens and underscores only."}
		}
	}
	// What package snowflake mints until 2032, and then.
	if alphanumeric && (len(raw) == 10 || len(raw) == 11) {
		return "", &CodeError{"A code of 10 or 11 letters and digits is kept for those that the service makes; add a hyphen, or a character."}
	}
	if reserved[strings.ToLower(raw)] {
		return "", &CodeError{"The code is a name that the service keeps for itself."}
	}
	return raw, nil
}
