# Count the primes up to n by the sieve of Eratosthenes.
BEGIN {
    for (i = 2; i <= n; i++)
        if (!(i in composite)) {
            count++
            largest = i
            for (j = i * i; j <= n; j += i) composite[j]
        }
    print "primes: " count
    print "largest: " largest
}
