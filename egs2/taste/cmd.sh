# Where jobs run: cmd_backend=slurm ./run.sh ..., or change the default here. The scripts
# are ESPnet's own (utils/*.pl); how they call the scheduler is in conf/slurm.conf,
# conf/queue.conf (sge) and conf/pbs.conf, which nobody has tried on a cluster yet.
cmd_backend=${cmd_backend:-local}

case ${cmd_backend} in
    local) launcher=run.pl ;;
    sge) launcher=queue.pl ;;
    pbs) launcher=pbs.pl ;;
    slurm) launcher=slurm.pl ;;
    *)
        echo "cmd.sh: unknown cmd_backend '${cmd_backend}'; local, slurm, sge or pbs" >&2
        return 1
        ;;
esac
export train_cmd=${launcher}
export cuda_cmd=${launcher}
export decode_cmd=${launcher}
