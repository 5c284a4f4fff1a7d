package conf

// File is the whole configuration: a section for each role.
type File struct {
	Cluster Cluster `toml:"cluster" help:"What all roles of one cluster share."`
	Master  Master  `toml:"master" help:"The master: holds the tree and the changelog."`
	Metalog Metalog `toml:"metalogger" help:"The metalogger: holds the changelog, votes, and never serves."`
	Chunkd  Chunkd  `toml:"chunkd" help:"The chunkserver: stores chunks."`
	Mount   Mount   `toml:"mount" help:"The mount."`
}

// Cluster is read by every role and by the tools.
type Cluster struct {
	Masters []string `toml:"masters" default:"127.0.0.1:9421" check:"addrs" help:"addresses of the masters' client port, HOST:PORT"`
	KeyFile string   `toml:"key-file" default:"/etc/varve/cluster.key" help:"file with the cluster key, made by 'varve init'"`
	Voters  []string `toml:"voters" default:"" check:"voters" help:"all masters and metaloggers as NUMBER=HOST:PORT of their port for each other (9419); empty: one master alone"`
	Name    string   `toml:"cluster-name" default:"varve" help:"name of the cluster, the same on all nodes; keeps the gossip of several clusters apart"`
	Seeds   []string `toml:"seeds" default:"" check:"addrs" help:"nodes by which to find the others, HOST:PORT of their gossip port (9426); empty: the hosts of cluster.voters"`
	Log     string   `toml:"log" default:"info" check:"debug|info|warn|error" help:"least important messages to log"`
}

// Master is the section of 'varve master'.
type Master struct {
	Dir           string   `toml:"dir" default:"/var/lib/varve/master" help:"directory for changelog and images"`
	Name          string   `toml:"name" default:"" help:"name in 'varve status'; empty: the host's name"`
	Clients       Addr     `toml:"clients" default:"0.0.0.0:9421" help:"listen for mounts and tools here"`
	Chunkservers  Addr     `toml:"chunkservers" default:"0.0.0.0:9420" help:"listen for chunkservers here"`
	HTTP          Addr     `toml:"http" default:"127.0.0.1:9425" help:"web page, /metrics, /healthz, /readyz; 0.0.0.0:9425 for other hosts too; empty: none"`
	ID            int      `toml:"id" default:"0" check:"0..1000000" help:"this master's number in cluster.voters; 0: the one whose host is this one; without voters, that of its directory"`
	Raft          Addr     `toml:"raft" default:"" help:"listen for other voters here; empty: every address, at the port that cluster.voters says"`
	Gossip        Addr     `toml:"gossip" default:"0.0.0.0:9426" help:"listen for gossip here, TCP and UDP, if there are several voters; empty: none"`
	VIP           []string `toml:"vip" default:"" check:"prefixes" help:"virtual addresses that the leading master has, as ADDRESS/BITS, e.g. 10.0.0.10/32"`
	VIPInterface  string   `toml:"vip-interface" default:"" help:"network interface for the virtual addresses; empty: the one in the network of the first"`
	User          string   `toml:"user" default:"" help:"user to run as under its supervisor, which keeps the rights it was started with; empty: the same"`
	Sync          string   `toml:"sync" default:"fsync" check:"fsync|quorum" help:"acknowledge a change when a majority has it on disk (fsync), or when a majority has it written and the disk follows within 50 ms (quorum)"`
	ImageEvery    Duration `toml:"image-every" default:"1h" help:"time between two images of the tree"`
	ImagesKept    int      `toml:"images-kept" default:"3" check:"1..100" help:"images to keep"`
	SessionLease  Duration `toml:"session-lease" default:"10s" help:"how long a silent mount keeps its rights"`
	RepairDelay   Duration `toml:"repair-delay" default:"10s" help:"how long a lost chunkserver may come back before its chunks are copied anew; chunks with one copy left do not wait"`
	RepairPerHost int      `toml:"repair-per-server" default:"4" check:"1..1000" help:"copies made at the same time by one chunkserver"`
	MinCopies     int      `toml:"min-copies" default:"1" check:"1..9" help:"fewest copies with which a chunk is made or opened for writing; one that is being written goes on with those that are left"`
}

// Metalog is the section of 'varve metalogger'.
type Metalog struct {
	Dir    string   `toml:"dir" default:"/var/lib/varve/metalogger" help:"directory for changelog and images"`
	Name   string   `toml:"name" default:"" help:"name in 'varve status'; empty: the host's name"`
	ID     int      `toml:"id" default:"0" check:"0..1000000" help:"this metalogger's number in cluster.voters; 0: the one whose host is this one"`
	Raft   Addr     `toml:"raft" default:"" help:"listen for other voters here; empty: every address, at the port that cluster.voters says"`
	HTTP   Addr     `toml:"http" default:"127.0.0.1:9427" help:"/metrics, /healthz, /readyz; 0.0.0.0:9427 for other hosts too; port 0: any; empty: none"`
	Gossip Addr     `toml:"gossip" default:"0.0.0.0:9426" help:"listen for gossip here, TCP and UDP; empty: none"`
	Keep   Duration `toml:"keep" default:"24h" help:"how long changelog and images are kept while the disk has room"`
	Sync   string   `toml:"sync" default:"fsync" check:"fsync|quorum" help:"as of the master; the same on all voters"`
}

// Chunkd is the section of 'varve chunkd'.
type Chunkd struct {
	Dirs      []string `toml:"dirs" default:"/var/lib/varve/chunks" help:"directories or block devices (/dev/...), one for each disk, to store chunks in; a device is used whole, without a file system"`
	Listen    Addr     `toml:"listen" default:"0.0.0.0:9422" help:"listen for data here"`
	Advertise Addr     `toml:"advertise" default:"" help:"address that mounts are told; empty: the address from which the master is reached"`
	Masters   []string `toml:"masters" default:"127.0.0.1:9420" check:"addrs" help:"addresses of the masters' chunkserver port, HOST:PORT"`
	HTTP      Addr     `toml:"http" default:"127.0.0.1:9428" help:"/metrics, /healthz, /readyz; 0.0.0.0:9428 for other hosts too; port 0: any; empty: none"`
	Gossip    Addr     `toml:"gossip" default:"" help:"listen for gossip here (usually 0.0.0.0:9426), TCP and UDP; empty: none"`
	Backend   string   `toml:"backend" default:"auto" check:"auto|uring|posix" help:"how disks are driven"`
	Limit     Size     `toml:"limit" default:"0" help:"bytes to use in each directory; 0: what the file system has, less a reserve"`
	Share     int      `toml:"share" default:"1" check:"1..1000" help:"stores on the file system of each directory: each counts its part of what is free as its own"`
	Scrub     Duration `toml:"scrub" default:"168h" help:"time in which everything stored is read and checked, again and again; 0s: never"`
	Lend      bool     `toml:"lend" default:"true" help:"let mounts on this host read the disks themselves: they get descriptors for reading"`
	Labels    string   `toml:"labels" default:"" help:"labels of this server, letters A to Z"`
}

// Mount is the section of 'varve mount'.
type Mount struct {
	HTTP        Addr     `toml:"http" default:"" help:"/metrics, /healthz, /readyz; empty: none"`
	WriteBuffer Size     `toml:"write-buffer" default:"256MiB" check:"8MiB.." help:"memory for data not yet written"`
	ReadAhead   Size     `toml:"read-ahead" default:"16MiB" help:"largest read-ahead of one file"`
	Cache       Size     `toml:"cache" default:"256MiB" help:"memory for data read"`
	MaxDirty    Duration `toml:"max-dirty" default:"1s" help:"how long written data may wait"`
	Timeout     Duration `toml:"timeout" default:"0s" help:"give up an operation after this time with an error; 0: wait as long as it takes"`
	Options     string   `toml:"options" default:"" help:"mount options, as with -o"`
	State       string   `toml:"state" default:"/var/lib/varve/mount" help:"directory for what must survive a killed mount process; empty: changes of names wait for the master"`
}
