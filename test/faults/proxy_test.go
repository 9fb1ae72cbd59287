package faults_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// proxy stands between the backends and Redis, and does to their connections what bad networks do.
type proxy struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// via is a fleet's Options.RedisVia.
func (p *proxy) via(redisAddr string) (string, error) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics log to the global logger
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p.proxy = toxiproxy.NewProxy(server, "redis", "127.0.0.1:0", redisAddr)
	if err := p.proxy.Start(); err != nil {
		return "", err
	}
	p.t.Cleanup(p.proxy.Stop)
	return p.proxy.Listen, nil
}

// toxic is a fault of connections, as toxiproxy's README lists them.
type toxic struct {
	Type       string         `json:"type"`
	Stream     string         `json:"stream"` // upstream is to Redis
	Toxicity   float32        `json:"toxicity"`
	Attributes map[string]int `json:"attributes"`
}

// poison puts toxics on every connection, present and future, until cure.
func (p *proxy) poison(toxics ...toxic) {
	p.t.Helper()
	for _, t := range toxics {
		text, err := json.Marshal(t)
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
			p.t.Fatal(err)
		}
	}
}

// cure takes all toxics off.
func (p *proxy) cure() { p.proxy.Toxics.ResetToxics(p.t.Context()) }
