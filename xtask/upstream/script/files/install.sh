#!/bin/sh
echo 'colour = teal' > '@DEVICE@/etc/app/app.conf'
