require client-image.inc
