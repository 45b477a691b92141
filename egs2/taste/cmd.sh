# Where jobs run. Change cmd_backend for a cluster; the scripts are ESPnet's own
# (utils/*.pl), and read conf/slurm.conf, conf/queue.conf or conf/pbs.conf.
cmd_backend=${cmd_backend:-local}

case ${cmd_backend} in
    local) launcher=run.pl ;;
    stdout) launcher=stdout.pl ;;
    sge) launcher=queue.pl ;;
    pbs) launcher=pbs.pl ;;
    slurm) launcher=slurm.pl ;;
    ssh) launcher=ssh.pl ;;
    *)
        echo "cmd.sh: unknown cmd_backend '${cmd_backend}'" >&2
        return 1
        ;;
esac
export train_cmd=${launcher}
export cuda_cmd=${launcher}
export decode_cmd=${launcher}
