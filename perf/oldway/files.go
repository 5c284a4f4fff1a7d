package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/varvefs/varve/test/lan"
)

// The addresses of the plan; /etc/hosts of all machines has them.
const (
	network = "10.77.9.0/24"
	vip     = "10.77.9.10"
	names   = vip + " mfsmaster\n10.77.9.11 m1\n10.77.9.12 m2\n10.77.9.13 ml\n10.77.9.21 cs1\n10.77.9.22 cs2\n10.77.9.31 cl\n"
)

// put writes a file on a host.
func put(h *lan.Host, name, text string, mode os.FileMode) error {
	path := h.Root() + name
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// keepalived's configuration. The check lowers the priority of the first
// machine below that of the second one when its mfsmaster is gone.
func keepalived(state string, priority int) string {
	check, track := "", ""
	if state == "MASTER" {
		check = `vrrp_script mfsmaster {
  script "/etc/keepalived/check.sh"
  interval 1
  fall 2
  rise 2
  weight -20
}
`
		track = "  track_script {\n    mfsmaster\n  }\n"
	}
	return fmt.Sprintf(`global_defs {
  script_user root
  enable_script_security
}
%svrrp_instance VI_1 {
  state %s
  interface eth0
  virtual_router_id 51
  priority %d
  advert_int 1
  authentication {
    auth_type PASS
    auth_pass varve
  }
  virtual_ipaddress {
    %s/24
  }
%s  notify_master "/etc/keepalived/master.sh"
  notify_backup "/etc/keepalived/backup.sh"
}
`, check, state, priority, vip, track)
}

const (
	checkScript = "#!/bin/sh\nexec pidof mfsmaster >/dev/null\n"

	// What the guides run when a machine becomes the master: let go of the
	// metalogger and start from its files, or from what unison has copied.
	masterScript = `#!/bin/sh
exec >>/root/takeover.log 2>&1
touch /run/was-master
date +%T.%N
pidof mfsmaster >/dev/null && exit 0
mfsmetalogger -c /etc/mfs/mfsmetalogger.cfg stop
mfsmaster -c /etc/mfs/mfsmaster.cfg -a -x start
date +%T.%N
`
	// keepalived calls this at its start as well, when there is nothing to stop.
	backupScript = `#!/bin/sh
[ -e /run/was-master ] || exit 0
exec >>/root/takeover.log 2>&1
mfsmaster -c /etc/mfs/mfsmaster.cfg stop
mfsmetalogger -c /etc/mfs/mfsmetalogger.cfg start
`
	masterConfig = "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = /var/lib/mfs\nEXPORTS_FILENAME = /etc/mfs/mfsexports.cfg\nLOCK_MEMORY = 0\n"
	exports      = "* / rw,alldirs,admin,maproot=0:0\n"
	loggerConfig = "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = /var/lib/mfs\nMASTER_HOST = mfsmaster\nMASTER_RECONNECTION_DELAY = 1\n"
	chunkConfig  = "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = /var/lib/mfs\nHDD_CONF_FILENAME = /etc/mfs/mfshdd.cfg\nMASTER_HOST = mfsmaster\nMASTER_RECONNECTION_DELAY = 1\nHDD_LEAVE_SPACE_DEFAULT = 256MiB\n"

	unisonProfile = `root = /var/lib/mfs
root = socket://m2:7777//var/lib/mfs
batch = true
auto = true
prefer = newer
times = true
confirmbigdel = false
ignore = Name .*lock
ignore = Name *_ml*
ignore = Name sessions*
log = false
`
	// Every change of the first master's files starts a synchronisation.
	watchScript = `#!/bin/sh
export HOME=/root
while :; do
  inotifywait -qq -r -t 5 -e modify,create,move,delete /var/lib/mfs
  unison mfs >>/root/unison.log 2>&1
done
`
)
