package httpapi

import "testing"

func FuzzPlainURL(f *testing.F) {
	f.Add([]byte(`{"url":"https://example.com/?a=1&b=%20#f"}`))
	f.Add([]byte(" {\t\"url\"\r:\n\"http://a/\" } \n"))
	f.Add([]byte(`{"url":"\u0068ttps://example.com/"}`))
	f.Add([]byte(`{"url":"https://example.com/","ttl":60}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		url, ok := plainURL(body)
		if !ok {
			return
		}
		var r createRequest
		if err := decodeBody(body, &r); err != nil || r.URL.value != url || r.hasOptions() || r.LongURL.set {
			t.Errorf("%q is read as %q, and by the decoder as %+v, %q", body, url, r, err)
		}
	})
}

func TestPlainURL(t *testing.T) {
	const url = "https://example.com/?a=1&b=%20#f"
	for body, want := range map[string]bool{
		`{"url":"` + url + `"}`:                true,
		" { \"url\" :\t\"" + url + "\"\r\n}\n": true,
		`{"url":""}`:                           false,
		`{"url":"` + url + `","ttl":60}`:       false,
		`{"url":"` + url + `"}{`:               false,
		`{"url":"` + url + `\u0041"}`:          false,
		`{"long_url":"` + url + `"}`:           false,
		`{"URL":"` + url + `"}`:                false,
		`{"url":"https://exämple.com/"}`:       false,
		``:                                     false,
	} {
		got, ok := plainURL([]byte(body))
		if ok != want || ok && got != url {
			t.Errorf("plainURL(%s) = %q, %v, want %v", body, got, ok, want)
		}
	}
}
