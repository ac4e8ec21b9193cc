// Command hookpath takes a packet through a Linux host and says where it goes and
// why.
package main

import (
	"os"

	"github.com/hookpath/hookpath/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
