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

// Encode returns the ID's code: its number in base 62, with the digits 0-9, A-Z, a-z and no leading zeros.
//
// Codes of one length sort bytewise as their IDs do, and so by time. IDs minted from 2026-02-07 until 2032-05-05 have
// codes of 10 characters, later ones 11. The ID must not be negative: no [Generator] makes such an ID, and [Decode]
// refuses its code.
func Encode(id ID) string {
	var buf [maxCodeLen]byte
	return string(encoding.AppendUint(buf[:0], uint64(id)))
}

// Decode returns the ID whose code this is, or [ErrInvalidCode] if the text is not exactly what [Encode] returns for
// some ID: each ID has one code and no other spelling. It does not allocate.
//
// Every non-negative ID has a code, 0 and those that no clock has reached yet included, so a text that decodes may
// be a code that was never minted.
func Decode(code string) (ID, error) {
	if len(code) > maxCodeLen { // refused unread, since its length is up to a stranger
		return 0, ErrInvalidCode
	}
	n, err := encoding.ParseUint([]byte(code))
	if err != nil {
		return 0, ErrInvalidCode
	}
	// ParseUint lets numbers past 64 bits wrap around, leading zeros pass, and takes an empty text for 0. None of
	// these is what the number encodes to.
	var buf [maxCodeLen]byte
	if id := ID(n); id >= 0 && string(encoding.AppendUint(buf[:0], n)) == code {
		return id, nil
	}
	return 0, ErrInvalidCode
}
