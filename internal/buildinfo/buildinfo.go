// Package buildinfo says what this binary was built from, for `server version`, the log and
// /metrics. It is a package of its own because all three must say the same.
package buildinfo

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// version is set by the linker if the build has no version control to ask: -ldflags "-X
// snowlink/internal/buildinfo.version=…".
var version string

// Version returns the version that the linker set, or the revision of version control that this
// binary was built from, or "devel" if neither was recorded.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// Collector returns a gauge that is always 1 and has the version in its labels.
func Collector() prometheus.Collector {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "snowlink_build_info", Help: "Always 1; what runs is in the labels.",
		ConstLabels: prometheus.Labels{"version": Version(), "goversion": runtime.Version()},
	})
	build.Set(1)
	return build
}
