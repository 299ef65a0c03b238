#!/bin/bash
# usage: build.sh CACHE [LAYER...]
# Makes the layers of the corpus, images of realistic size and kind, below
# CACHE/corpus and prints that directory: LAYER.tar, and LAYER.sha256 of it. They
# are made from packages of Debian's suite below, by no version, and with their
# maintainer scripts, as an image build does it. What is there stays as it is as
# long as its recipe below does; to make a layer anew, remove its tar.
set -Eeuo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "$1")
shift
suite=trixie
all=(base shell python nginx postgresql redis node java scratch probe files changes big)
dir=$cache/corpus
tree=$dir/tree # the layers as overlayfs has them
mkdir -p "$dir/debs" "$tree"

# Each layer's ground, packages and further steps, which run inside.
below_changes=files
packages_python=python3
packages_nginx=nginx-light
packages_postgresql=postgresql
packages_redis=redis-server
packages_node=nodejs
packages_java=default-jre-headless

steps_shell() {
	cat >/usr/local/bin/job <<-'END'
		#!/bin/sh
		# A night's report: reads, sorts, writes, and fails in the end.
		set -eu
		trap 'echo "job: told to stop"; exit 12' TERM
		mkdir -p /var/lib/job
		grep -c . /var/lib/dpkg/status >/var/lib/job/lines
		awk -F: '{ print $7 }' /etc/passwd | sort | uniq -c | sort -rn
		find /usr/bin -type l | sort | head -n 5
		printf 'job: %s\n' "$(cat /var/lib/job/lines)" >&2
		exit 3
	END
	chmod 755 /usr/local/bin/job
}

steps_python() {
	mkdir -p /app /data/inbox
	chown 1234:4321 /data /data/inbox
	chmod 2770 /data/inbox
	cat >/app/app.py <<-'END'
		import http.server, os, pathlib, signal, sys
		class App(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        with open("/data/inbox/visits", "a") as f:
		            f.write("visit\n")
		        self.send_response(200, "Seen")
		        self.end_headers()
		        self.wfile.write(b"hello\n")
		    def log_message(self, *a): print("asked for", self.path, flush=True)
		def stop(number, frame):
		    visits = pathlib.Path("/data/inbox/visits")
		    print("stopping after", len(visits.read_text().split()), "visit,", oct(visits.stat().st_mode), visits.stat().st_uid, visits.stat().st_gid, flush=True)
		    sys.exit(5)
		signal.signal(signal.SIGTERM, stop)
		print("home is", os.path.expanduser("~"), file=sys.stderr, flush=True)
		http.server.HTTPServer(("127.0.0.1", 8000), App).serve_forever()
	END
}

steps_nginx() {
	rm -f /etc/nginx/sites-enabled/default
	cat >/etc/nginx/conf.d/corpus.conf <<-'END'
		server { listen 127.0.0.1:8080; root /var/www/html; index index.nginx-debian.html; }
	END
	ln -sf /dev/stdout /var/log/nginx/access.log
	ln -sf /dev/stderr /var/log/nginx/error.log
}

steps_postgresql() {
	ln -s /usr/lib/postgresql/*/bin/postgres /usr/local/bin/postgres
	ln -s /var/lib/postgresql/*/main /srv/data
	ln -s /etc/postgresql/*/main /srv/config
	sed -i 's/scram-sha-256/trust/' /etc/postgresql/*/main/pg_hba.conf
}

steps_node() {
	mkdir -p /app
	cat >/app/server.js <<-'END'
		const http = require('http'), os = require('os');
		const server = http.createServer((q, a) => { console.log('asked for ' + q.url); a.end('hello\n'); });
		server.listen(3000, '127.0.0.1', () => console.error('home is ' + os.homedir() + ', user ' + process.getuid()));
		process.on('SIGINT', () => { console.log('stopping'); process.exit(6); });
	END
	useradd --create-home --uid 1500 --groups audio,video node
}

steps_java() {
	mkdir -p /srv/www
	echo hello >/srv/www/index.html
}

# files and changes are what layers do to each other: deletions, opaque
# directories, hard and symbolic links, modes, odd names, devices and pipes.
steps_files() {
	mkdir -p /srv/{gone/deep,opaque/old,kept,links,swap}
	for f in gone/deep/a opaque/old/b opaque/c kept/d links/first swap/file; do echo "$f" >"/srv/$f"; done
	ln /srv/links/first /srv/links/second
	ln /srv/links/first /srv/kept/third
	ln -s first /srv/links/relative
	ln -s /srv/gone/deep/a /srv/links/dangling-later
	ln -s ../../srv/links /srv/kept/to-directory
	mkdir /srv/swap/directory
	ln -s kept /srv/swap/link
	mkfifo -m 0600 /srv/kept/pipe
	truncate -s 3000000 /srv/kept/sparse
	printf odd >"/srv/kept/ name with  spaces, \"quotes\" and ümlaut"
	printf long >"/srv/kept/$(printf 'n%.0s' {1..250})"
	install -m 4755 -o 1000 -g 1001 /bin/true /srv/kept/setuid
	install -d -m 1777 /srv/kept/sticky
	install -d -m 2755 -g 1001 /srv/kept/setgid
	touch -d @1 /srv/kept/old
	: >/srv/kept/empty
}

steps_changes() {
	rm -r /srv/gone
	rm -r /srv/opaque && mkdir /srv/opaque && echo new >/srv/opaque/new
	echo changed >>/srv/links/first # copied up: the links part, as in every image
	chmod 0600 /srv/kept/d
	rm -r /srv/swap/directory && echo now a file >/srv/swap/directory
	rm /srv/swap/file && mkdir /srv/swap/file && echo in it >/srv/swap/file/inner
	rm /srv/swap/link && ln -s /srv/opaque /srv/swap/link
	rm -f /etc/motd /usr/bin/chage
	ln /srv/links/first /srv/links/fourth
	mkdir -p /srv/a/b/c/d/e/f/g && ln -s ../../../../../../../links/first /srv/a/b/c/d/e/f/g/up
}

# Weights of a model, say: 1.5 GiB, the same each time.
steps_big() {
	mkdir -p /srv/weights
	for i in {01..24}; do
		perl -e 'use integer; my ($s, $n) = @ARGV; for (1 .. $n / 4096) { my $b = ""; for (1 .. 512) { $s = $s * 6364136223846793005 + 1442695040888963407; $b .= pack "q", $s } print $b x 16 }' "$i" 4194304 >"/srv/weights/part$i"
	done
}

# fetch has apt fetch what a package adds to the tree of base.
fetch() {
	local debs=$dir/debs/$1
	mkdir -p "$debs/partial"
	[[ -e $debs/complete ]] || {
		"$here/../rig/suite.sh" "$cache" "$suite" -o "Dir::State::status=$tree/base/var/lib/dpkg/status" \
			-o "Dir::Cache::archives=$debs" install -y --download-only "$2" >&2
		touch "$debs/complete"
	}
}

# inside installs and runs the steps with the layers as root, in a mount
# namespace of its own.
inside() {
	local name=$1 lower=$2 up=$3 work=$4
	local root=$work/root
	mkdir -p "$root" "$work/work"
	mount -t overlay overlay -o "lowerdir=$lower,upperdir=$up,workdir=$work/work" "$root"
	mount -t tmpfs tmpfs "$root/mnt"
	mount -t proc proc "$root/proc"
	mount -t tmpfs -o mode=755 tmpfs "$root/dev"
	for d in null zero full random urandom; do cp -a "/dev/$d" "$root/dev/"; done
	ln -s /proc/self/fd "$root/dev/fd"
	local run=
	if compgen -G "$dir/debs/$name/*.deb" >/dev/null; then
		cp "$dir/debs/$name"/*.deb "$root/mnt/"
		printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # starts no service
		chmod 755 "$root/usr/sbin/policy-rc.d"
		run='apt-get -qq -o APT::Sandbox::User=root -o Dpkg::Options::=--force-unsafe-io install -y --no-install-recommends /mnt/*.deb; '
	fi
	if declare -F "steps_$name" >/dev/null; then run+="$(declare -f "steps_$name"); steps_$name"; fi
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		chroot "$root" /bin/bash -euc "$run" </dev/null >"$dir/$name.log" 2>&1 || { tail -n 5 "$dir/$name.log" >&2; return 1; }
	rm -f "$root/usr/sbin/policy-rc.d"
	rm -rf "$root"/var/cache/apt/*.bin "$root"/usr/share/{doc,man,info}/* "$root"/var/cache/debconf/*-old
}

# recipe is all that a layer is made of, but for the packages' versions.
recipe() {
	local packages=packages_$1 ground=below_$1
	echo "$suite ${!packages:-}"
	declare -f "steps_$1" || true
	[[ -z ${!ground:-} ]] || recipe "${!ground}"
}

layer() {
	local name=$1 up=$tree/$1 work lower=()
	work=$(mktemp -d "$dir/work.XXXXXX")
	rm -rf "$up"
	mkdir -p "$up"
	case $name in
	base)
		debootstrap --variant=minbase "$suite" "$up" "$("$here/../rig/archive.sh")" >"$dir/base.log" 2>&1 || {
			tail -n 3 "$dir/base.log" >&2
			return 1
		}
		rm -rf "$up"/var/cache/apt/archives/*.deb "$up"/var/lib/apt/lists/* "$up"/usr/share/{doc,man,info,locale}/* "$up"/dev/*
		;;
	scratch | probe)
		local to=usr/bin/scratch
		[[ $name != probe ]] || to=.probe
		(cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$up/$to" "./$name")
		;;
	*)
		local packages=packages_$name ground=below_$name
		[[ -z ${!ground:-} ]] || lower+=("$tree/${!ground}")
		lower+=("$tree/base")
		[[ -z ${!packages:-} ]] || fetch "$name" "${!packages}"
		if declare -F "steps_$name" >/dev/null; then export -f "steps_$name"; fi
		export -f inside
		export dir
		unshare --mount --propagation private bash -euc 'inside "$@"' - "$name" "$(IFS=:; echo "${lower[*]}")" "$up" "$work"
		;;
	esac
	# Younger files are made at the start of a container; and the same again is the same tar.
	find "$up" -newermt yesterday -exec touch -h -d 2026-01-02 {} +
	(cd "$here" && CGO_ENABLED=0 go run -trimpath ./pack "$up" "${lower[@]}") >"$dir/$name.new"
	recipe "$name" >"$dir/$name.recipe"
	if ! cmp -s "$dir/$name.new" "$dir/$name.tar"; then # another test may be reading it
		sha256sum <"$dir/$name.new" | cut -c1-64 >"$dir/$name.sha256"
		mv "$dir/$name.new" "$dir/$name.tar"
	fi
	rm -f "$dir/$name.new"
	rm -rf "$work"
}

trap 'echo "build.sh: layer ${name:-} could not be made; its log: $dir/${name:-}.log" >&2' ERR
(($#)) || set -- "${all[@]}"
for name; do
	# Our own programs are as today's sources have them.
	if [[ ! -e $dir/$name.tar || $name == probe || $name == scratch ]] || ! recipe "$name" | cmp -s - "$dir/$name.recipe"; then layer "$name"; fi
done
echo "$dir"
