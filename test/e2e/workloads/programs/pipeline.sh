# A shell pipeline on a terminal: three processes of one job, which number their lines into a file.
# shellcheck disable=SC2016
i=0
while :; do
  i=$((i + 1))
  echo "line $i"
  sleep 0.05
done | sed -u 's/line/number/' | while read -r text; do
  echo "$text" >>"$1"
  echo "$text"
done
