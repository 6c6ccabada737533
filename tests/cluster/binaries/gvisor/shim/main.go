// Command shim is gVisor's shim for containerd. It also starts where CAP_SYS_RESOURCE is missing.
package main

import (
	"os"
	"strconv"
	"strings"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/shim/v1/cli"

	_ "github.com/moby/sys/userns"
)

const capSysResource = 24

// inUserNS decides whether containerd's sys.SetOOMScore forgives that it may not lower a score.
// gVisor's shim asks for -999 when it starts (pkg/shim/v1/manager.go, oomScoreMax), and gives up
// where that is refused, although nothing but its rank before the out-of-memory killer is at stake.
//
//go:linkname inUserNS github.com/moby/sys/userns.inUserNS
var inUserNS func() bool

// mayLowerOOMScore tells whether this process holds CAP_SYS_RESOURCE (proc(5), capabilities(7)).
func mayLowerOOMScore() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:")
	digits, _, _ := strings.Cut(strings.TrimSpace(after), "\n")
	effective, err := strconv.ParseUint(digits, 16, 64)
	return err != nil || effective>>capSysResource&1 == 1
}

func main() {
	// The process that only starts the shim sets the score, and looks at nothing else for this.
	if starting := os.Args[len(os.Args)-1] == "start"; starting && !mayLowerOOMScore() {
		inUserNS = func() bool { return true }
	}
	cli.Main()
}
