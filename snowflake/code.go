package snowflake

import (
	"errors"

	"github.com/jxskiss/base62"
)

// ErrInvalidCode is returned by [Decode] for what [Encode] never returns.
var ErrInvalidCode = errors.New("invalid code")

// maxCodeLen is the length of the longest code, that of the ID 1<<63 - 1.
const maxCodeLen = 11

// encoding has its digits in ASCII order, so that codes of one length sort as their IDs do.
var encoding = base62.NewEncoding("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

// Encode returns the code of the ID: its number in base 62, with the digits 0-9, A-Z and a-z, and
// no leading zeros.
//
// Codes of one length sort bytewise as their IDs do, and so by time. IDs minted from 2026-02-07
// until 2032-05-05 have codes of 10 characters, later ones 11. The ID must not be negative: no
// [Generator] makes such an ID, and [Decode] refuses its code.
func Encode(id ID) string {
	var buf [maxCodeLen]byte
	return string(encoding.AppendUint(buf[:0], uint64(id)))
}

// Decode returns the ID whose code this is, or [ErrInvalidCode] if the text is not exactly what
// [Encode] returns for some ID. So each ID has one spelling. Decode does not allocate.
//
// Every ID that is not negative has a code, also 0 and those whose time has not come. So a text
// that decodes may be a code that was never minted.
func Decode(code string) (ID, error) {
	if len(code) > maxCodeLen { // it is not read, since a stranger may make it as long as he likes
		return 0, ErrInvalidCode
	}
	n, err := encoding.ParseUint([]byte(code))
	if err != nil {
		return 0, ErrInvalidCode
	}
	// ParseUint lets numbers past 64 bits wrap around, takes leading zeros, and takes an empty text
	// for 0. None of these is what the number encodes to.
	var buf [maxCodeLen]byte
	if id := ID(n); id >= 0 && string(encoding.AppendUint(buf[:0], n)) == code {
		return id, nil
	}
	return 0, ErrInvalidCode
}
