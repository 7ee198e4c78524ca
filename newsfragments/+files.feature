A process raises its own limit of open files to 4096 where it may, and where it may not, it keeps so few connections that its contents and ports have files left.
