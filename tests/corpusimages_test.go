package tests

import (
	"fmt"
	"regexp"
)

// corpus is the images, the quick ones first.
func corpus() []corpusImage {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	http := func(port int) []string {
		return []string{"-ask", fmt.Sprintf("127.0.0.1:%d", port), "-say", `GET / HTTP/1.0\r\n\r\n`}
	}
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	type config = map[string]any
	return []corpusImage{
		{name: "shell", layers: []string{"base", "shell"}, tree: "/etc,/var,/usr/local,/home,/root", program: []string{"/usr/local/bin/job"},
			config: config{"Env": append(env, "REPORT=nightly", "EMPTY=", "QUOTED=a \"b\" $c")}},
		{name: "scratch", layers: []string{"scratch"}, tree: "/usr", ask: http(8080), program: []string{"/usr/bin/scratch"}},
		{name: "python", layers: []string{"base", "python"}, tree: "/etc,/var,/app,/data,/srv", ask: http(8000), program: []string{"python3", "app.py"},
			config: config{"Env": env, "User": "1234:4321", "WorkingDir": "/app", "Volumes": config{"/data": config{}, "/srv/fresh": config{}}}},
		{name: "changes", layers: []string{"base", "files", "changes"}, tree: "/etc,/srv,/usr/bin", program: sh("cd /srv && cat links/* kept/third swap/*/inner; du -a | wc -l"),
			config: config{"Env": env, "WorkingDir": "/srv/made/by/workdir", "User": "nobody"}},
		{name: "nginx", layers: []string{"base", "nginx"}, tree: "/etc,/var", ask: http(8080), program: []string{"nginx", "-g", "daemon off;"},
			config: config{"Env": env, "StopSignal": "SIGQUIT", "ExposedPorts": config{"8080/tcp": config{}}}, differs: regexp.MustCompile(`\[[^]]*\]`)},
		{name: "redis", layers: []string{"base", "redis"}, tree: "/etc,/var", ask: []string{"-ask", "127.0.0.1:6379", "-say", `PING\r\n`},
			program: []string{"redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"},
			config:  config{"Env": env, "User": "redis", "WorkingDir": "/var/lib/redis"},
			differs: regexp.MustCompile(`(?m)^\d+:\w+ \d+ \w+ \d{4} [\d:.]+|\d+:signal-handler \(\d+\)|monotonic clock: .*|pid=\d+`)},
		{name: "node", layers: []string{"base", "node"}, tree: "/etc,/var,/app,/home", ask: http(3000), program: []string{"node", "server.js"},
			config: config{"Env": env, "User": "node", "WorkingDir": "/app", "StopSignal": "SIGINT"}},
		{name: "postgresql", layers: []string{"base", "postgresql"}, tree: "/etc,/var", ask: []string{"-ask-by", "psql -h 127.0.0.1 -d postgres -Atc select(6*7)"},
			program: []string{"postgres", "-D", "/srv/data", "-c", "config_file=/srv/config/postgresql.conf", "-c", "log_line_prefix=", "-c", "listen_addresses=127.0.0.1"},
			config:  config{"Env": append(env, "LC_ALL=C.UTF-8"), "User": "postgres", "StopSignal": "SIGINT"},
			differs: regexp.MustCompile(`checkpoint (complete|starting): .*|\(PID \d+\)|FATAL:  the database system is starting up\n`)},
		{name: "java", layers: []string{"base", "java"}, tree: "/etc,/srv", ask: http(8080), says: "GET / HTTP", // it logs after it has answered
			program: []string{"java", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-m", "jdk.httpserver", "-b", "127.0.0.1", "-p", "8080", "-d", "/srv/www"},
			config:  config{"Env": env, "User": "www-data", "StopSignal": "15"}, differs: regexp.MustCompile(`\[[^]]*\]`)},
		{name: "big", layers: []string{"base", "big"}, tree: "/etc,/srv", config: config{"Env": env},
			program: sh("for f in /srv/weights/*; do { head -c 4096 $f; tail -c 4096 $f; } | cksum; done")},
	}
}
