#!/bin/sh
# certificates.sh DIRECTORY: an authority, a certificate each of two hosts, and one of an authority that nobody trusts.
set -eu
mkdir -p "$1"
cd "$1"
umask 077

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$1.key" -out "$1.pem"
}

# certificate FILE AUTHORITY NAME
certificate() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" -keyout "$1.key" -out "$1.csr"
    printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.pem"
}

authority ca
authority other
certificate db ca db.example.test
certificate collector ca collector.example.test
certificate stranger other collector.example.test
