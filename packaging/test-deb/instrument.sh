# A scale that sends its weight twice a second by itself, on standard output.
n=0
while :; do
    n=$((n + 1))
    printf 'ST,GS,+%06d.5kg\r\n' "$n"
    sleep 0.5
done
