# listen.pl READY COMMAND UID PROTO ADDRESS PORT...: open sockets under the name and
# the user of some daemon, say so on READY, and keep them.
use strict;
use warnings;
use Socket;

my ($ready, $command, $uid, $proto, $addr, @ports) = @ARGV;
my @keep;
$! = 0;
for my $port (@ports) {
	my ($type, $number) = $proto eq 'tcp' ? (SOCK_STREAM, 6) : (SOCK_DGRAM, 17);
	# The owner of a socket is the user who makes it; the port needs root.
	$> = $uid;
	socket(my $s, PF_INET, $type, $number) or die "socket: $!";
	$> = 0;
	setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) or die "SO_REUSEADDR: $!";
	bind($s, sockaddr_in($port, inet_aton($addr))) or die "bind $addr:$port: $!";
	$proto ne 'tcp' or listen($s, 128) or die "listen: $!";
	push @keep, $s;
}
$0 = $command;
open(my $f, '>', $ready) or die "$ready: $!";
print $f "ready\n";
close $f;
sleep;
