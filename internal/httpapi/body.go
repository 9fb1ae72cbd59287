package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A field is a field of a request that may be absent, null or have a value. To a create, null means
// absent. To a change, it means: remove.
type field[T any] struct {
	set   bool // it is there, if only as null
	null  bool
	value T
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom]. It is called only for a field that is there.
func (f *field[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	f.set, f.null = true, d.PeekKind() == 'n'
	return json.UnmarshalDecode(d, &f.value)
}

// given reports whether the field has a value.
func (f *field[T]) given() bool { return f.set && !f.null }

// plainURL returns the URL of a body that is {"url":"…"} and nothing more, as nearly all bodies
// are. The decoder uses reflection and takes ten times as long. plainURL may return false for any
// body. FuzzPlainURL checks that it returns true only if the decoder reads the same URL.
func plainURL(body []byte) (url string, ok bool) {
	for _, token := range [...]string{"{", `"url"`, ":", `"`} {
		if body, ok = bytes.CutPrefix(bytes.TrimLeft(body, jsonSpace), []byte(token)); !ok {
			return "", false
		}
	}
	end := bytes.IndexByte(body, '"')
	if end < 1 || string(bytes.Trim(body[end+1:], jsonSpace)) != "}" {
		return "", false
	}
	for _, b := range body[:end] {
		if b < ' ' || b > '~' || b == '\\' {
			return "", false
		}
	}
	return string(body[:end]), true
}

// jsonSpace is the white space of JSON.
const jsonSpace = " \t\r\n"

// decodeBody reads the body of a request, which is one JSON object. An unknown field is refused: a
// client that asks for something unknown must not believe that it was done. The error is a
// *bodyError for the client. It says what is wrong and where, and repeats nothing of the body
// except names of fields.
func decodeBody(body []byte, into any) error { return decodeObject("body", body, into) }

// decodeObject is decodeBody for an object that messages call something else, such as a line.
func decodeObject(what string, text []byte, into any) error {
	var err error
	if utf8.Valid(text) {
		if err = json.Unmarshal(text, into, json.RejectUnknownMembers(true)); err == nil {
			return nil
		}
	}
	return &bodyError{problemInvalidJSON, notAnObject(what, text, err)}
}

// notAnObject says why the text could not be read as a JSON object. The reason is err or, if that
// is nil, that the text is not UTF-8.
func notAnObject(what string, text []byte, err error) (detail string) {
	example := "the " + what + ` must be one JSON object such as {"url":"https://example.com/"}.`
	if len(text) == 0 {
		return "The " + what + " is empty; " + example
	}
	if err == nil {
		return "The " + what + " is not UTF-8; " + example
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fmt.Sprintf("The field %q is there twice.", abbreviated(syntactic.JSONPointer.LastToken()))
		}
		return fmt.Sprintf("The %s is not valid JSON at byte %d; %s", what, syntactic.ByteOffset, example)
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		for name := range semantic.JSONPointer.Tokens() { // the first: an error may lie deeper
			if errors.Is(err, json.ErrUnknownName) {
				return fmt.Sprintf("The field %q is not known.", abbreviated(name))
			}
			return fmt.Sprintf("The field %q must be %s.", name, kindOf(name))
		}
	}
	return "The " + what + " is not a JSON object; " + example
}

// kindOf says what the field takes, for people.
func kindOf(field string) string {
	switch field {
	case "ttl", "max_visits", "status":
		return "a whole number"
	case "forward_query", "disabled":
		return "true or false"
	case "tags":
		return "a list of strings"
	}
	return "a string"
}

// abbreviated shortens a name that the client sent, so that it cannot fill the answer.
func abbreviated(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	i := most
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return s[:i] + "…"
}
