# Changes of every kind below /srv, /opt and /gone: new, changed, moved, deleted, another kind.
echo new > /srv/new; rm /srv/doomed; rm -r /srv/folder; mkdir -m 700 /srv/other /srv/other/deep
echo changed >> /srv/file; chmod 600 /srv/mode; ln -s /etc /srv/link; rm /srv/lower
mkdir /srv/lower; mv /srv/moved /srv/was-moved; rm -r /srv/again; mkdir /srv/again
echo x > /srv/again/new
ln /srv/new /srv/hard; chmod 4755 /srv/new; rm /opt/of-top; rm -r /gone; mkdir -m 1777 /opt/kept
