// Command probe is the entrypoint of each image of the corpus: it prints what
// it finds around it, one item a line (@@ KEY = VALUE), and then is, or starts
// and asks, the image's own program.
//
//	probe [-tree DIR,DIR] [-ask HOST:PORT -say TEXT | -ask-by PROGRAM] --
//	PROGRAM [ARGUMENT...]
//
// Without a question the program takes its place. With one it stays the parent:
// it asks until it is answered, says "ready", hands on each signal by name, and
// ends with the program's status.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	tree := flag.String("tree", "", "directories to list")
	ask := flag.String("ask", "", "address that the program answers at")
	say := flag.String("say", "", "what to send there, \\r and \\n as such")
	askBy := flag.String("ask-by", "", "program that asks, with arguments")
	flag.Parse()
	report(strings.Split(*tree, ","))
	question := func() (string, error) { return overTCP(*ask, *say) }
	if *askBy != "" {
		question = func() (string, error) { return byProgram(strings.Fields(*askBy)) }
	}
	var err error
	if *ask == "" && *askBy == "" {
		err = become(flag.Args())
	} else {
		err = serve(flag.Args(), question)
	}
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(1)
}

func become(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}

func serve(argv []string, question func() (string, error)) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			item("signal", s)
			_ = cmd.Process.Signal(s)
		}
	}()
	go func() {
		item("answer", patiently(question))
		item("ready", "yes")
	}()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	item("program", cmd.ProcessState)
	os.Exit(max(cmd.ProcessState.ExitCode(), 0))
	return nil
}

func patiently(question func() (string, error)) string {
	for range 1200 { // a JVM on an emulated processor takes its time
		answer, err := question()
		if err == nil {
			return answer
		}
		time.Sleep(250 * time.Millisecond)
	}
	return "none"
}

// overTCP returns the first and the last line of the answer's first packet.
func overTCP(address, text string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte(strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(text))); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func byProgram(argv []string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	return strings.Join(strings.Fields(string(out)), " "), err
}
